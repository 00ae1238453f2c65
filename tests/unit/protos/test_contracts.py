"""Holds the contracts to the linter and to the rule that every rpc says what its caller must hold."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from protos.common.v1 import options_pb2
from protos.generate import proto_files

ROOT = Path(__file__).resolve().parent.parent.parent.parent
BUF = Path(sys.executable).parent / "buf"
LINT_LIMIT_S = 60


def services() -> list[ServiceDescriptor]:
    """Every service of every contract, from the generated descriptors."""
    names = [name.removesuffix(".proto").replace("/", ".") + "_pb2" for name in proto_files(ROOT)]
    modules = [importlib.import_module(name) for name in names]
    return [service for module in modules for service in module.DESCRIPTOR.services_by_name.values()]


def methods() -> list[MethodDescriptor]:
    return [method for service in services() for method in service.methods]


def buf(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [str(BUF), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LINT_LIMIT_S, check=False)


def test_contracts_pass_the_linter() -> None:
    run = buf("lint")
    assert (run.returncode, run.stdout + run.stderr) == (0, "")


def test_linter_refuses_an_rpc_without_a_comment(tmp_path: Path) -> None:
    folder = tmp_path / "protos/sample/v1"
    folder.mkdir(parents=True)
    (tmp_path / "buf.yaml").write_text((ROOT / "buf.yaml").read_text())
    (folder / "sample_service.proto").write_text(
        'syntax = "proto3";\n\n// Sample.\npackage headrace.sample.v1;\n\n// Answers.\nservice SampleService {\n'
        "  rpc GetSample(GetSampleRequest) returns (GetSampleResponse);\n}\n\n"
        "// Asks.\nmessage GetSampleRequest {}\n\n// Answers.\nmessage GetSampleResponse {}\n"
    )
    run = buf("lint", folder=tmp_path)
    assert run.returncode != 0
    assert "GetSample" in run.stdout
    assert "comment" in run.stdout


def test_linter_is_told_to_overlook_one_rule_only() -> None:
    lint = yaml.safe_load((ROOT / "buf.yaml").read_text())["lint"]
    assert lint["use"] == ["STANDARD", "COMMENTS", "STABLE_PACKAGE_NO_IMPORT_UNSTABLE"]
    assert lint["except"] == ["PACKAGE_DIRECTORY_MATCH"]
    assert set(lint) == {"use", "except"}


def test_contracts_hold_the_expected_services() -> None:
    found = {service.full_name for service in services()}
    assert found >= {
        "headrace.feature.v1.OnlineFeatureService",
        "headrace.feature.v1.ShardService",
        "headrace.control.v1.RegistryService",
        "headrace.offline.v1.HistoricalService",
    }


@pytest.mark.parametrize("method", methods(), ids=lambda method: method.full_name)
def test_rpc_declares_a_permission(method: MethodDescriptor) -> None:
    permission = method.GetOptions().Extensions[options_pb2.permission]
    assert permission != options_pb2.PERMISSION_UNSPECIFIED
    assert permission in options_pb2.Permission.values()


@pytest.mark.parametrize("method", methods(), ids=lambda method: method.full_name)
def test_rpc_owns_its_request_and_response(method: MethodDescriptor) -> None:
    assert method.input_type.name == f"{method.name}Request"
    assert method.output_type.name == f"{method.name}Response"
    assert method.input_type.file is method.containing_service.file


@pytest.mark.parametrize("service", services(), ids=lambda service: service.full_name)
def test_package_is_versioned_and_named_for_the_product(service: ServiceDescriptor) -> None:
    product, area, version = service.file.package.split(".")
    assert (product, version) == ("headrace", "v1")
    assert service.file.name.startswith(f"protos/{area}/{version}/")
