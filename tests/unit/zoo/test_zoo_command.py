import json
import shlex
import subprocess
import sys

import pytest

from deeplab.cli import main
from deeplab.config import CONFIGS, resolve
from deeplab.config.command_line import parse
from deeplab.zoo.catalogue import read_catalogue
from deeplab.zoo.fetch import ZooFetchConfig
from deeplab.zoo.recipes import bare_flags, recipes

ENTRIES = read_catalogue().checkpoints
each_entry = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.id)


@pytest.fixture
def deeplab(capsys, monkeypatch):
    """Runs a command line in this process; returns status, standard output and standard error."""
    monkeypatch.setattr("deeplab.stage.stop.install", lambda: None)

    def run(*words):
        status = main(list(words))
        output = capsys.readouterr()
        return status, output.out, output.err

    return run


def test_the_table_is_aligned_and_whole(deeplab):
    status, output, _ = deeplab("zoo", "list")
    lines = output.splitlines()
    column = lines[0].index("data set")
    assert status == 0
    assert [line.split()[0] for line in lines[1:23]] == [entry.id for entry in ENTRIES]
    assert [line[column:].split()[0] for line in lines[1:23]] == [entry.dataset for entry in ENTRIES]
    assert "82.20 val@16, 83.58 val@8*" in output and "mobilenet_v2 x 0.5" in output


def test_the_list_of_one_data_set_as_json(deeplab):
    status, output, _ = deeplab("zoo", "list", "--dataset=ade20k", "--json")
    found = json.loads(output)
    assert status == 0
    assert [entry["id"] for entry in found] == ["mobilenetv2_ade20k_train", "xception65_ade20k_train"]
    assert found[0]["url"] == ("http://download.tensorflow.org/models/deeplabv3_mnv2_ade20k_train_2018_12_03.tar.gz")
    assert found[0]["scores"][0]["pixel_accuracy"] == 75.41


@each_entry
def test_every_page_can_be_shown(deeplab, entry):
    status, output, _ = deeplab("zoo", "show", entry.archive)
    assert status == 0
    assert output.startswith(entry.id) and f"models/{entry.archive}.tar.gz" in output
    assert output.count("  score  ") == len(entry.scores)
    _, as_json, _ = deeplab("zoo", "show", "--json", entry.id)
    assert [recipe["words"] in output for recipe in json.loads(as_json)["commands"]].count(False) == 0


@each_entry
def test_what_a_page_says_can_be_typed(entry):
    """Every stage takes its command beside the model.json of this checkpoint, without a contradiction."""
    typed = [shlex.split(recipe.words) for recipe in recipes(entry)]
    assert typed[0][:4] == ["deeplab", "zoo", "fetch", entry.id]
    resolve(ZooFetchConfig, parse(ZooFetchConfig, typed[0][4:]))
    for _, stage, *words in typed[1:]:
        resolve(CONFIGS[stage], parse(CONFIGS[stage], words), entry.description())
    stages = [words[1] for words in typed[1:]]
    assert stages == (["evaluate"] * len(entry.scores) + ["export", "predict"] if entry.scores else ["train"])


@each_entry
def test_commands_measure_what_was_published(entry):
    evaluations = [shlex.split(recipe.words)[2:] for recipe in recipes(entry) if " evaluate " in recipe.words]
    configs = [
        resolve(CONFIGS["evaluate"], parse(CONFIGS["evaluate"], words), entry.description()) for words in evaluations
    ]
    assert [
        (config.eval_split, config.output_stride, config.eval_scales, config.add_flipped_images, config.eval_crop_size)
        for config in configs
    ] == [(score.split, score.output_stride, score.scales, score.flips, entry.crop_size) for score in entry.scores]
    assert len({config.eval_logdir for config in configs}) == len(configs)


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if entry.scores], ids=lambda entry: entry.id)
def test_bare_flags_say_the_same_as_the_description(entry):
    paths = {
        "evaluate": ["--dataset_dir=a", "--checkpoint_dir=b", "--eval_logdir=c"],
        "export": ["--checkpoint_path=a", "--export_path=b"],
    }
    for stage, recipe in zip(paths, bare_flags(entry), strict=True):
        bare = resolve(CONFIGS[stage], parse(CONFIGS[stage], [*paths[stage], *shlex.split(recipe.words)]))
        dataset = [f"--dataset={entry.dataset}"] if stage == "evaluate" else []
        described = resolve(CONFIGS[stage], parse(CONFIGS[stage], [*paths[stage], *dataset]), entry.description())
        different = {"dataset"} if stage == "export" else set()
        assert bare.model_dump(exclude=different) == described.model_dump(exclude=different)


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["lst"], 2, "unknown verb 'lst', one of list, show, fetch; did you mean list?"),
        (["show"], 2, "name the checkpoint: deeplab zoo show NAME"),
        (["show", "edgetpu_deeplb"], 2, "did you mean edgetpu_deeplab?"),
        (["show", "edgetpu_deeplab", "edgetpu_deeplab_slim"], 2, "unexpected 'edgetpu_deeplab_slim'"),
        (["list", "--datset=ade20k"], 2, "unknown flag --datset; did you mean --dataset?"),
        (["list", "--dataset=ade"], 2, "--dataset=ade: no published checkpoint"),
        (["fetch", "edgetpu_deeplab"], 2, "--output_dir is required"),
        (["fetch", "--output_dir", "zoo"], 2, "name the checkpoint: deeplab zoo fetch NAME"),
        (["fetch", "edgetpu_deeplab", "--output_dir=zoo", "--sha256=12"], 2, "--sha256=12: "),
    ],
)
def test_bad_command_lines_end_with_one_line(deeplab, words, status, message):
    found, output, errors = deeplab("zoo", *words)
    assert (found, output) == (status, "")
    assert errors.startswith("deeplab zoo: ") and message in errors and errors.count("\n") == 1


@pytest.mark.parametrize(("words", "status"), [([], 2), (["--help"], 0), (["help"], 0)])
def test_the_help_names_the_verbs(deeplab, words, status):
    found, output, _ = deeplab("zoo", *words)
    assert found == status
    assert all(f"deeplab zoo {verb}" in output for verb in ("list", "show NAME", "fetch NAME"))


def test_the_help_of_a_verb_lists_its_flags(deeplab):
    status, output, _ = deeplab("zoo", "fetch", "--help")
    assert status == 0
    assert all(f"--{name}" in output for name in ("output_dir", "mirror", "sha256"))


def test_the_zoo_starts_without_tensorflow():
    program = "import sys, deeplab.cli, deeplab.zoo.command; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
