"""The documents and recipes say what is true: commands, paths, settings, examples."""

import ast
import copy
import dataclasses
import json
import math
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from esnac_tf import datasets, search, teachers
from esnac_tf.config import SearchConfig

ROOT = pathlib.Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
RECIPES = sorted((ROOT / "flags").glob("*.flags"))
PAPER = [path for path in RECIPES if path.name.startswith("paper_")]
# Settings that are not the method's: they are left to the machine and the user.
NOT_THE_METHOD = {
    "distribute", "mixed_precision", "jit_compile", "export", "metric", "metric_direction", "loss",
    "protect", "round_channels_to", "max_params", "teacher_targets", "executor",
    "ray_address", "cpus_per_candidate", "gpus_per_candidate", "asynchronous", "resume",
}  # fmt: skip


def python(*arguments, cwd=ROOT, code=0):
    """Runs Python as a user does; the project is found in the checkout."""
    result = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert result.returncode == code, result.stdout + result.stderr
    return result


def parsed(*arguments):
    """The flags as the command line reads them; the module's own stay as they are."""
    values = copy.deepcopy(search.FLAGS)
    assert values(["search", *arguments]) == ["search"]
    return values


def config_of(values):
    names = [field.name for field in dataclasses.fields(SearchConfig) if field.name in values]
    return SearchConfig(**{name: values[name].value for name in names})


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def head_of(recipe):
    return "".join(line for line in recipe.read_text().splitlines(True) if line.startswith("#"))


class TestRecipes:
    @pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
    def test_parses_and_makes_a_config(self, recipe):
        values = parsed(f"--flagfile={recipe}")
        config_of(values)
        if recipe.stem.startswith("own_model"):  # whose user names both
            assert values["teacher"].value is values["dataset"].value is None
            return
        teachers.parse_name(values["teacher"].value)
        assert values["dataset"].value in datasets.names()

    @pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
    def test_head_tells_command_time_and_result(self, recipe):
        head = head_of(recipe)
        command = f"python -m esnac_tf.search --flagfile=flags/{recipe.name}"
        assert head.count(command) == 1
        assert re.search(r"^# Time: +\S", head, re.MULTILINE)
        assert re.search(r"^# Result: +\S", head, re.MULTILINE)

    def test_the_issue_s_recipes_are_there(self):
        nets = ("vgg19", "resnet18", "resnet34", "shufflenet")
        wanted = {f"paper_{net}_{data}" for net in nets for data in ("cifar10", "cifar100")}
        assert {path.stem for path in RECIPES} >= wanted | {
            "quickstart",
            "laptop_resnet18_cifar10",
        }

    @pytest.mark.parametrize("recipe", PAPER, ids=lambda path: path.stem)
    def test_the_paper_s_have_its_settings_and_spell_them_out(self, recipe):
        values = parsed(f"--flagfile={recipe}")
        _, teacher, dataset = recipe.stem.split("_")
        assert (values["teacher"].value, values["dataset"].value) == (teacher, dataset)
        assert config_of(values) == SearchConfig(
            max_shrinkage=0.9 if teacher == "shufflenet" else 1.0,
            num_steps=20,
            num_kernels=8,
            num_candidates=1000,
            kernel_steps=100,
            search_epochs=10,
            search_learning_rate=1e-3,
            num_best=4,
            full_epochs=300,
            full_optimizer="sgd",
            full_learning_rate=0.01,
            batch_size=128,
            weight_decay=5e-4,
            channel_importance="first",
            seed=127,
        )
        assert values["teacher_epochs"].value == 400
        assert values["teacher_learning_rate"].value == 0.1
        assert values["validation_examples"].value == 5000
        spelled = set(re.findall(r"^--(\w+)=", recipe.read_text(), re.MULTILINE))
        fields = {field.name for field in dataclasses.fields(SearchConfig)}
        assert spelled >= fields - NOT_THE_METHOD

    def test_quickstart_runs_as_a_user_runs_it(self, tmp_path):
        result = python(
            "-m",
            "esnac_tf.search",
            "--flagfile=flags/quickstart.flags",
            "--teacher=resnet18(width=4)",
            "--teacher_epochs=1",
            "--train_examples=256",
            "--num_steps=1",
            "--num_kernels=2",
            "--num_best=1",
            "--search_epochs=1",
            "--full_epochs=1",
            f"--run_dir={tmp_path / 'run'}",
            f"--cache_dir={tmp_path / 'cache'}",
        )
        summary = json.loads((tmp_path / "run" / "summary.json").read_text())
        measured = {"num_params", "flops", "validation_accuracy", "test_accuracy"}
        assert summary["teacher"].keys() >= measured
        [student] = summary["students"]
        assert student.keys() >= measured | {"objective", "times_smaller", "exports"}
        assert student["times_smaller"] == pytest.approx(
            summary["teacher"]["num_params"] / student["num_params"]
        )
        assert set(student["exports"]) == {"saved_model", "keras"}
        for path in student["exports"].values():
            assert (tmp_path / "run" / path).exists()
        lines = (tmp_path / "run" / "trials.jsonl").read_text().splitlines()
        trials = [json.loads(line) for line in lines]
        assert [trial["number"] for trial in trials] == [0, 1]
        fields = {"state", "actions", "num_params", "flops", "validation_accuracy", "objective"}
        for trial in trials:
            assert trial.keys() >= fields | {"number", "duration_secs"}
        for word in ("Validation accuracy", "Test accuracy", "Times smaller", "student 1"):
            assert word in result.stdout
        for name in re.findall(r"^\| `([a-z.]+/?)` \|", README, re.MULTILINE):
            is_there = (tmp_path / "run" / name).exists()
            assert is_there == (name != "calibration.json"), name  # of long searches


class TestHelp:
    def test_lists_every_flag_and_needs_no_tensorflow(self):
        code = (
            "import sys; from esnac_tf import search; code = search.main(['search', '--help']);"
            "sys.exit(code or 'tensorflow' in sys.modules or 'keras' in sys.modules)"
        )
        text = python("-c", code).stdout
        for name in set(search.FLAGS) - {"flagfile", "undefok"}:
            assert re.search(rf"^  --{name}\b", text, re.MULTILINE), name

    def test_every_setting_is_a_flag_with_the_same_default(self):
        values = parsed()
        for field in dataclasses.fields(SearchConfig):
            assert field.name in values, field.name
        assert config_of(values) == SearchConfig()


class TestReadme:
    QUICKSTART = (
        "python3 -m venv .venv && .venv/bin/pip install '.[quickstart]' && "
        ".venv/bin/python -m esnac_tf.search --flagfile=flags/quickstart.flags"
    )
    TESTS = (
        "python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && "
        ".venv/bin/python tools/check.py"
    )

    @pytest.mark.parametrize("command", [QUICKSTART, TESTS], ids=["quickstart", "tests"])
    def test_has_each_command_once(self, command):
        assert README.count(command) == 1
        assert f"```bash\n{command}\n```" in README

    def test_commands_name_existing_files_and_flags(self):
        lines = "".join(blocks(README, "bash")).splitlines()
        words = [word for line in lines for word in shlex.split(line)]
        for path in re.findall(r"\b(?:flags|tools)/[\w./]+", " ".join(words)):
            assert (ROOT / path).is_file(), path
        for name in re.findall(r"--(\w+)=", README):
            assert name == "flagfile" or name in search.FLAGS, name

    def test_extras_exist(self):
        extras = set(re.findall(r"\.\[(\w+)\]|extra `(\w+)`", README))
        names = {first or second for first, second in extras}
        setup = (ROOT / "setup.py").read_text()
        assert names
        for name in names:
            assert f'"{name}": ' in setup, name

    def test_ci_runs_the_test_command(self):
        script = (ROOT / ".ci" / "run").read_text()
        [extraction] = re.findall(r"command=\$\((awk .*)\)\n", script)
        result = subprocess.run(
            ["bash", "-c", extraction], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert result.stdout.strip() == self.TESTS

    def test_names_are_those_of_the_code(self):
        for name in (*teachers.names(), *datasets.names()):
            assert f"`{name}`" in README

    def test_the_standard_errors_of_an_accuracy_are_right(self):
        paragraph = README.split("has a standard error of")[1].split("\n\n")[0]
        share = int(re.search(r"at (\d+) %", paragraph).group(1)) / 100
        told = re.findall(r"([\d.]+)(?: points)?\s+with ([\d,]+)", paragraph)
        assert len(told) == 3
        for points, count in told:
            error = 100 * math.sqrt(share * (1 - share) / int(count.replace(",", "")))
            assert float(points) == round(error, 1)

    def test_says_what_happens_to_frozen_layers_weights_and_exports(self):
        words = " ".join(README.split())
        for told in (
            "Layers that you froze (`trainable=False`) are trained like the others",
            "A third part, `(x, y, weight)`, is one number for each example;",
            "Without `run_dir` nothing is saved: `exports` is `{}`",
        ):
            assert told in words

    def test_the_gentle_settings_are_those_of_the_recipe(self):
        [example] = [block for block in blocks(README, "python no-run") if "num_steps" in block]
        [call] = [node for node in ast.walk(ast.parse(example)) if isinstance(node, ast.Call)]
        settings = {word.arg: ast.literal_eval(word.value) for word in call.keywords}
        recipe = ROOT / "flags" / "own_model_small.flags"
        assert SearchConfig(**settings) == config_of(parsed(f"--flagfile={recipe}"))
        assert set(settings) == set(re.findall(r"^--(\w+)=", recipe.read_text(), re.MULTILINE))

    def test_python_example_runs(self, tmp_path):
        [example] = blocks(README, "python")
        (tmp_path / "example.py").write_text(example)
        output = python("example.py", cwd=tmp_path).stdout
        assert output.count("times smaller, test accuracy") == 4
        assert (tmp_path / "student.keras").is_file()
        assert (tmp_path / "runs" / "python" / "summary.json").is_file()


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_to_files(document):
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / document).read_text()):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


class TestContributing:
    ROWS = re.findall(r"^\| ([a-z ]+) \| (.*) \| (.*) \| (.*) \|$", CONTRIBUTING, re.MULTILINE)

    def test_covers_every_extension(self):
        assert {row[0] for row in self.ROWS} >= {
            "teacher",
            "layer type",
            "strategy",
            "acquisition",
            "data set",
            "export format",
            "distillation loss",
            "objective",
        }

    @pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
    def test_names_existing_places(self, row):
        places = re.findall(r"`((?:esnac_tf|tests|flags)/[\w./]*)`", f"{row[1]} {row[3]}")
        assert len(places) >= 2
        for place in places:
            path = ROOT / place
            assert (path.parent if path.stem == "NAME" else path).exists(), place

    def test_checks_are_those_of_the_script(self):
        code = "import check; print(*check.CHECKS, sep=', ')"
        names = python("-c", f"import sys; sys.path.insert(0, 'tools'); {code}").stdout.strip()
        assert f"some of them: {names}" in CONTRIBUTING


class TestArchitecture:
    def test_names_every_room(self):
        for path in (ROOT / "esnac_tf").iterdir():
            if path.name.startswith(("_", ".")) or path.name == "py.typed":
                continue
            room = f"{path.name}/" if path.is_dir() else path.name
            assert f"`{room}`" in ARCHITECTURE, room

    def test_names_every_module_of_graph(self):
        for path in (ROOT / "esnac_tf" / "graph").glob("[a-z]*.py"):
            assert f"`{path.stem}`" in ARCHITECTURE, path.stem

    def test_import_order_is_the_contract_s(self):
        contract = (ROOT / "pyproject.toml").read_text().split("[tool.importlinter]")[1]
        layers = re.search(r"^layers = \[\n(.*?)^\]", contract, re.DOTALL | re.MULTILINE).group(1)
        expected = re.findall(r'"(.*)"', layers)
        written = ARCHITECTURE.split("## Import order")[1].split("\n## ")[0]
        assert re.findall(r"^    (\w.*)$", written, re.MULTILINE) == expected
