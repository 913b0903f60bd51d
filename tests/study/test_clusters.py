"""The files of sweeps/, as far as one machine can try them."""

import subprocess
import sys

import pytest
import yaml
from PIL import Image

from cmxlib import SecretKey
from cmxlib.paths import ROOT
from cmxlib.study.grid import check_data, read_grid
from cmxlib.study.scales import CIPHERS, SCALES

SWEEPS = ROOT / "sweeps"


def test_the_grid_has_the_units_that_it_says():
    grid = read_grid(SWEEPS / "grid.toml")
    counts = {table.name: len(list(table.units(scale))) for scale, tables in grid for table in tables}
    total = sum(len(list(table.units(scale))) for scale, tables in grid for table in tables)
    said = (SWEEPS / "grid.toml").read_text().splitlines()[0]
    assert f"{total:,} units, {len(grid) * counts['training']} of them trainings" in said
    assert {scale.name for scale, _ in grid} == {f"grid-dim{d}-kernel_size{k}" for d in (64, 128, 256) for k in (3, 5)}
    assert {(scale.model["dim"], scale.model["kernel_size"]) for scale, _ in grid} == {
        (d, k) for d in (64, 128, 256) for k in (3, 5)
    }
    assert grid[0][0].seeds == (0, 1, 2, 3, 4) and grid[0][0].train == SCALES["small"].train


def test_a_file_may_change_whatever_a_scale_has(tmp_path):
    (tmp_path / "own.toml").write_text(
        'base = "paper"\nname = "own"\ntables = ["keys"]\n[scale]\nciphers = ["flip"]\nmodel.depth = 3\n'
        'train.epochs = 2\nattack.pairs = [1]\nfiner = {2 = {epochs = 1}}\n[axes]\n"train.max_lr" = [0.01, 0.5]\n'
    )
    (low, tables), (high, _) = read_grid(tmp_path / "own.toml")
    assert (low.name, high.name) == ("own-max_lr0_01", "own-max_lr0_5") and tables[0].name == "keys"
    assert (low.train.max_lr, high.train.max_lr, high.train.epochs) == (0.01, 0.5, 2)
    assert low.model == SCALES["paper"].model | {"depth": 3} and low.ciphers == {"flip": CIPHERS["flip"]}
    assert low.attack.pairs == (1,) and low.at(2).train.epochs == 1


def test_a_file_may_name_a_folder_of_images(tmp_path):
    for part in ("train", "test"):
        for level, name in enumerate(("dark", "light")):
            (tmp_path / "grey" / part / name).mkdir(parents=True)
            for i in range(4):
                Image.new("L", (9, 8), 200 * level + i).save(tmp_path / "grey" / part / name / f"{i}.png")
    (tmp_path / "own.toml").write_text(
        f'base = "quick"\nname = "own"\ntables = ["keys"]\n[scale]\nmodel = {{num_classes = 2, channels = 1}}\n'
        f'dataset = {{name = "folder", root = "{tmp_path / "grey"}", size = 8, channels = 1}}\nciphers = ["flip"]\n'
    )
    ((scale, _),) = read_grid(tmp_path / "own.toml")
    assert scale.data().train_images.shape == (8, 1, 8, 8) and scale.model["num_classes"] == 2
    cipher = scale.ciphers["flip"](SecretKey.for_experiment(0), 4)
    assert (cipher.channels, cipher.steps) == (1, ("flip",))


GOOD = 'base = "quick"\nname = "own"\ntables = ["keys"]\n'


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("base = ", "is no TOML file"),
        ('base = "quick"', "lacks name, tables"),
        (GOOD + "workers = 3", "has workers, but only base, name, tables, scale and axes are read"),
        (GOOD.replace("quick", "huge"), "no scale 'huge'"),
        (GOOD.replace("keys", "kyes"), "no table 'kyes'"),
        (GOOD.replace('"own"', "0x" + "f" * 5000), r"own\.toml must have a text as name"),
        (GOOD.replace('["keys"]', f"[{', '.join(['0x' + 'f' * 5000] * 2)}]"), r"own\.toml must have different values"),
        (GOOD + "[scale]\nseed = [1]", r"no scale\.seed: there are dataset, model"),
        (GOOD + "[scale]\nmodel.heads = 3", r"no scale\.model\.heads: there are dim"),
        (GOOD + "[scale]\nmodel = 3", r"scale\.model must name what differs"),
        (GOOD + "[scale]\nseeds = 3", r"scale\.seeds must be a list"),
        (GOOD + "[scale]\nn_wrong = [3]", r"scale\.n_wrong must be one value"),
        (GOOD + '[scale]\nciphers = ["rot13"]', r"scale\.ciphers must be a list of some of shuffle, flip"),
        (GOOD + "[scale]\ntrain.epochs = 0", "epochs must be"),
        (GOOD + '[scale]\ndataset = {name = "folder", sides = 8}', r"scale\.dataset must be the arguments of load_da"),
        (GOOD + "[scale]\npatch_sizes = [8]", "patch_sizes must begin with the model's patch_size"),
        (GOOD + "[axes]\nmodel.depth = [2]", "The axis 'model' needs a list of values, and a name in quotes"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path, text, match):
    (tmp_path / "own.toml").write_text(text)
    with pytest.raises(ValueError, match=match):
        read_grid(tmp_path / "own.toml")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (
            "model.num_classes = 5",
            "the network cannot be trained on fontdigits: The model must give logits .* 10 classes",
        ),
        ("model.channels = 1\nciphers = ['flip']", "fontdigits has 3 channels, but model.channels is 1"),
        ("model.patch_size = 5\npatch_sizes = [5]", "patches of 5 do not divide images"),
        ("train.batch_size = 100000", "fontdigits has fewer images than a batch"),
        ("finer.7.epochs = 3", "patches of 7 do not divide images"),
    ],
)
def test_what_does_not_fit_the_data_is_told_before_a_unit_is_measured(tmp_path, text, match):
    (tmp_path / "own.toml").write_text(f"{GOOD}[scale]\n{text}")
    with pytest.raises(ValueError, match=match):
        check_data(read_grid(tmp_path / "own.toml"))


def test_the_job_of_a_slurm_worker(tmp_path):
    pytest.importorskip("dask_jobqueue")
    done = subprocess.run([sys.executable, SWEEPS / "slurm.py", "--script"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert {"#SBATCH -p gpu", "#SBATCH --cpus-per-task=4", "#SBATCH --gres=gpu:1", f"cd {ROOT}"} <= set(lines)
    assert "export OMP_NUM_THREADS=4" in lines and "--nthreads 1 " in done.stdout
    script = tmp_path / "job"
    script.write_text(done.stdout)
    assert subprocess.run(["bash", "-n", script]).returncode == 0


REFUSING = "#!/bin/sh\necho invalid partition >&2\nexit 1"


@pytest.mark.parametrize(
    ("command", "sbatch", "status", "words"),
    [
        ("slurm.py depths.toml", "", 2, "there is no sbatch here"),
        ("slurm.py none.toml", "", 1, "none.toml: No such file"),
        ("slurm.py depths.toml", REFUSING, 1, "sbatch does not take the job that --script prints: invalid partition"),
        ("ssh.py", "", 2, "the following arguments are required: file, HOST"),
        ("ssh.py none.toml host", "", 1, "none.toml: No such file"),
        ("ssh.py depths.toml no.invalid", "", 1, "Cluster failed to start"),
    ],
)
def test_a_cluster_that_cannot_be_is_told_in_a_sentence(tmp_path, monkeypatch, script, command, sbatch, status, words):
    if sbatch:
        (tmp_path / "sbatch").write_text(sbatch)
        (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.chdir(SWEEPS)
    program, *arguments = command.split()
    found, told = script(program, *arguments)
    assert found == status and told.splitlines()[-1].startswith(f"{program}: "), told
    assert words in told and "Traceback" not in told


def test_the_pods_of_kubernetes_share_one_checkout_and_meet_at_the_service():
    """The file was also held against the operator's own schema, that of dask-kubernetes 2026.3."""
    cluster = yaml.safe_load((SWEEPS / "kubernetes.yaml").read_text())
    worker, scheduler = cluster["spec"]["worker"]["spec"], cluster["spec"]["scheduler"]
    for pod in (worker, scheduler["spec"]):
        (container,), (volume,) = pod["containers"], pod["volumes"]
        assert container["volumeMounts"] == [{"name": volume["name"], "mountPath": container["workingDir"]}]
    assert worker["containers"][0]["args"][-2:] == ["--nthreads", "1"]
    ports = {port["name"]: port["containerPort"] for port in scheduler["spec"]["containers"][0]["ports"]}
    assert {port["targetPort"]: port["port"] for port in scheduler["service"]["ports"]} == ports
    assert scheduler["service"]["selector"]["dask.org/cluster-name"] == cluster["metadata"]["name"]


def test_each_job_of_an_array_measures_its_share(tmp_path):
    """The script, with a `cmx` that says what it is asked."""
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "cmx").write_text('#!/bin/sh\necho "$OMP_NUM_THREADS" "$@"\n')
    (tmp_path / ".venv" / "bin" / "cmx").chmod(0o755)
    job = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "20", "SLURM_CPUS_PER_TASK": "4"}
    done = subprocess.run(["bash", SWEEPS / "array.sbatch"], cwd=tmp_path, env=job, capture_output=True, text=True)
    assert done.stdout == "4 study --sweep sweeps/grid.toml --shard 3/20\n"


def test_the_files_for_python_are_whole():
    for path in SWEEPS.glob("*.py"):
        compile(path.read_text(), path, "exec")
