"""Names the interpreter of the checkout's .venv to the rules, as this build downloads nothing."""

_QUESTION = "import sysconfig; print(sysconfig.get_config_var('EXT_SUFFIX'))"

def _local_python_impl(repository_ctx):
    root = repository_ctx.path(Label("//:BUILD.bazel")).dirname
    scripts = root.get_child(".venv").get_child("bin")
    python = scripts.get_child("python")
    if not python.exists:
        fail("no %s: run `make build` once, then Bazel again" % python)
    answer = repository_ctx.execute([python, "-c", _QUESTION])
    if answer.return_code != 0:
        fail("%s does not run: %s" % (python, answer.stderr))
    repository_ctx.file("BUILD.bazel", "")
    repository_ctx.file("python.bzl", "PYTHON = %r\nSCRIPTS = %r\nEXTENSION_SUFFIX = %r\n" % (
        str(python),
        str(scripts),
        answer.stdout.strip(),
    ))

local_python = repository_rule(
    implementation = _local_python_impl,
    doc = "The interpreter of .venv, with the packages of requirements/dev.txt.",
    local = True,
)
