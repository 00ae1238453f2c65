"""Stands in for the coverage tools that every test of Bazel 4 names and would download, though none is run."""

_BUILD = """
package(default_visibility = ["//visibility:public"])

filegroup(name = "coverage_report_generator")

filegroup(name = "lcov_merger")
"""

def _no_coverage_tools_impl(repository_ctx):
    repository_ctx.file("BUILD.bazel", _BUILD)

no_coverage_tools = repository_rule(
    implementation = _no_coverage_tools_impl,
    doc = "Empty targets of the names that Bazel 4 asks of @remote_coverage_tools.",
)
