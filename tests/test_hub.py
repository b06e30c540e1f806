import pytest

from videomae_jax.hub import locate, repository

COMMIT = "0" * 40


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """A model in huggingface_hub's cache, as a download leaves it, and no way to the Hub."""
    cache = tmp_path / "cache"
    snapshot = cache / "models--owner--model" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (cache / "models--owner--model" / "refs").mkdir()
    (cache / "models--owner--model" / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return snapshot


def test_files_and_folders_are_taken_as_they_are(tmp_path):
    file = tmp_path / "model.safetensors"
    file.touch()
    assert locate(file, patterns=()) == file
    assert locate(str(tmp_path), patterns=()) == tmp_path


def test_a_run_stands_for_its_model(tmp_path):
    (tmp_path / "model").mkdir()
    assert locate(tmp_path, patterns=()) == tmp_path
    (tmp_path / "model" / "config.json").touch()
    assert locate(tmp_path, patterns=()) == tmp_path / "model"
    (tmp_path / "config.json").touch()
    assert locate(tmp_path, patterns=()) == tmp_path


def test_a_home_is_known(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert locate("~", patterns=()) == tmp_path


def test_hub_ids_are_looked_up_in_the_cache(cached):
    assert locate("owner/model", patterns=("*.json",)) == cached
    assert locate("owner/model", patterns=("*.json",), revision=COMMIT) == cached


def test_offline_without_a_copy_is_a_clear_error(cached):
    with pytest.raises(ValueError, match="owner/other is no file or folder here, .* Offline, download the model"):
        locate("owner/other", patterns=("*.json",))


def test_one_file_of_the_hub(cached):
    (cached / "distilled").mkdir()
    (cached / "distilled" / "x.pth").touch()
    assert locate("owner/model/distilled/x.pth", patterns=()) == cached / "distilled" / "x.pth"
    with pytest.raises(ValueError, match="owner/model/distilled/y.pth is no file or folder here, and the Hugging Face"):
        locate("owner/model/distilled/y.pth", patterns=())


@pytest.mark.parametrize("name", ["a--b/--c", "runs/quickstart"])
def test_a_misspelt_folder_may_look_like_a_hub_id(name, cached):
    with pytest.raises(ValueError, match=f"^{name} is no file or folder here"):
        locate(name, patterns=("*.json",))


@pytest.mark.parametrize("name", ["nothing", "./no/where", "/no/where", "a/b/c"])
def test_what_cannot_be_a_hub_id_is_not_asked_of_it(name):
    with pytest.raises(ValueError, match=f"^{name} does not exist.$"):
        locate(name, patterns=("*.json",))


def test_what_is_not_here_may_be_a_repository_on_the_hub(tmp_path, monkeypatch):
    assert repository("owner/model") == repository("owner/model/folder/file.pth") == "owner/model"
    assert repository("runs") is None
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "model").mkdir(parents=True)
    assert repository("owner/model") is None
