# lit's configuration: goldens are .ir and .moe files with RUN lines; %moecc-built tools come first in PATH.
import os
import lit.formats

config.name = "moecc"
config.test_format = lit.formats.ShTest(True)
config.suffixes = [".ir", ".moe"]
here = os.path.dirname(os.path.abspath(__file__))
build = os.path.abspath(os.environ.get("BUILD", os.path.join(here, "..", "build")))
config.test_source_root = here
config.test_exec_root = os.path.join(build, "lit")
config.excludes = ["bench", "e2e", "imports", "oracle", "parse"]
llvm = "/usr/lib/llvm-14/bin"
config.environment["PATH"] = os.pathsep.join([build, llvm, os.environ.get("PATH", "")])
config.substitutions.append(("%examples", os.path.join(here, "..", "examples")))
