"""Rules for Python packages, protobuf stubs, Cython cores, commands and tests that need no rule set from elsewhere."""

load("@headrace_python//:python.bzl", "EXTENSION_SUFFIX", "PYTHON", "SCRIPTS")

# Starts in the tree that Bazel lays out of links: sources and built files side by side.
_COMMAND = """#!/usr/bin/env bash
set -euo pipefail
PYTHONPATH="${{RUNFILES_DIR:-$0.runfiles}}/{workspace}" exec '{python}' -c \\
  'import sys; from {module} import {function}; sys.exit({function}())' "$@"
"""

# Copies that tree first, as a test that follows a link would leave it and see the checkout instead.
_TEST = """#!/usr/bin/env bash
set -euo pipefail
tree="$TEST_TMPDIR/tree"
mkdir "$tree" && cp -rL . "$tree" && chmod -R u+w "$tree" && cd "$tree"
export HOME="${{HOME:-$TEST_TMPDIR}}" PATH='{scripts}':"$PATH" PYTHONPATH="$tree"
exec '{python}' -m pytest -p no:cacheprovider --basetemp="$TEST_TMPDIR/pytest" -m 'not slow' -q {paths} "$@"
"""

def _with_deps(ctx, files):
    runfiles = ctx.runfiles(files = files)
    for dependency in ctx.attr.deps:
        runfiles = runfiles.merge(dependency[DefaultInfo].default_runfiles)
    return runfiles

def _python_package_impl(ctx):
    return [DefaultInfo(files = depset(ctx.files.srcs), runfiles = _with_deps(ctx, ctx.files.srcs))]

python_package = rule(
    implementation = _python_package_impl,
    attrs = {"deps": attr.label_list(), "srcs": attr.label_list(allow_files = True)},
    doc = "A folder of Python modules, with what it imports.",
)

def _launcher(ctx, template, **values):
    launcher = ctx.actions.declare_file(ctx.label.name)
    content = template.format(python = PYTHON, scripts = SCRIPTS, workspace = ctx.workspace_name, **values)
    ctx.actions.write(launcher, content, is_executable = True)
    return launcher

def _python_command_impl(ctx):
    module, function = ctx.attr.entry.split(":")
    launcher = _launcher(ctx, _COMMAND, module = module, function = function)
    return [DefaultInfo(executable = launcher, files = depset([launcher]), runfiles = _with_deps(ctx, []))]

python_command = rule(
    implementation = _python_command_impl,
    attrs = {"deps": attr.label_list(), "entry": attr.string(mandatory = True)},
    doc = "A command that calls one function, named module:function as in pyproject.toml.",
    executable = True,
)

def _python_test_impl(ctx):
    launcher = _launcher(ctx, _TEST, paths = " ".join(ctx.attr.paths))
    return [DefaultInfo(executable = launcher, runfiles = _with_deps(ctx, ctx.files.srcs))]

python_test = rule(
    implementation = _python_test_impl,
    attrs = {
        "deps": attr.label_list(),
        "paths": attr.string_list(mandatory = True),
        "srcs": attr.label_list(allow_files = True),
    },
    doc = "The tests of pytest under some paths.",
    test = True,
)

def python_stubs(name, srcs):
    """Generates messages, services and their types beside each contract."""
    kinds = ["_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi"]
    options = ["--%s_out=$(RULEDIR)" % kind for kind in ["python", "grpc_python", "mypy", "mypy_grpc"]]
    native.genrule(
        name = name,
        srcs = srcs,
        outs = [source[:-len(".proto")] + kind for source in srcs for kind in kinds],
        cmd = "PATH='%s':$$PATH '%s' -m grpc_tools.protoc -I. %s $(SRCS)" % (SCRIPTS, PYTHON, " ".join(options)),
        message = "Generating stubs",
    )

def cython_cores(name, modules, srcs):
    """Compiles every core by setup.py, so that its flags stand in one place."""
    native.genrule(
        name = name,
        srcs = srcs,
        outs = [module.replace(".", "/") + EXTENSION_SUFFIX for module in modules],
        cmd = " ".join([
            "PYTHONPATH=. HEADRACE_CHECKED=1 '%s' setup.py -q build_ext --parallel 2" % PYTHON,
            "--build-lib $(RULEDIR) --build-temp build/temp >build.log 2>&1 || { cat build.log; exit 1; }",
        ]),
        message = "Compiling cores",
    )
