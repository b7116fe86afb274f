"""`nsarm train export --push`: to a Hub on loopback, which takes uploads as the real one does."""

import base64
import json

import pytest

from loopback import COMMIT, serving


class Uploads:
    """The side of the Hub that takes a repository: small files in the commit, large ones apart."""

    def __init__(self, server, repo):
        self.repos = []
        self.files = {}
        self.taken = 201
        self._server, self._repo = server, repo
        self._large = {}
        api = f"/api/models/{repo}"
        server.receivers |= {
            ("POST", "/api/repos/create"): self._create,
            ("POST", "/api/validate-yaml"): lambda _body: (200, b'{"errors": [], "warnings": []}'),
            ("POST", f"{api}/preupload/main"): self._sort,
            ("POST", f"/{repo}.git/info/lfs/objects/batch"): self._offer,
            ("POST", f"{api}/commit/main"): self._commit,
        }

    def _create(self, body):
        self.repos.append(json.loads(body))
        return self.taken, self._json(url=f"{self._server.url}/{self._repo}")

    def _sort(self, body):
        names = [file["path"] for file in json.loads(body)["files"]]
        modes = ["lfs" if name.endswith(".safetensors") else "regular" for name in names]
        files = [
            {"path": name, "uploadMode": mode, "shouldIgnore": False, "oid": None}
            for name, mode in zip(names, modes, strict=True)
        ]
        return 200, self._json(files=files)

    def _offer(self, body):
        objects = []
        for wanted in json.loads(body)["objects"]:
            place = f"/large/{wanted['oid']}"
            self._server.receivers["PUT", place] = self._keeper(wanted["oid"])
            upload = {"href": self._server.url + place, "header": {}}
            objects.append({**wanted, "actions": {"upload": upload}})
        return 200, self._json(transfer="basic", objects=objects)

    def _keeper(self, oid):
        def keep(body):
            self._large[oid] = body
            return 200, b""

        return keep

    def _commit(self, body):
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.files[value["path"]] = self._large[value["oid"]]
        address = f"{self._server.url}/{self._repo}/commit/{COMMIT}"
        return 200, self._json(commitUrl=address, commitOid=COMMIT)

    @staticmethod
    def _json(**values):
        return json.dumps(values).encode()


@pytest.fixture
def hub(monkeypatch):
    with serving() as server:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        yield server


@pytest.mark.parametrize("exists", [False, True])
def test_pushing_uploads_the_model_and_nothing_else(
    hub, nsarm_train, micro_folder, tmp_path, exists
):
    uploads = Uploads(hub, "me/mine")
    uploads.taken = 409 if exists else 201
    out = tmp_path / "exported"
    out.mkdir()
    (out / "diary.txt").write_text("mine alone")

    done = nsarm_train("export", micro_folder, out, "--push", "me/mine", "--private")
    assert (done.code, done.out) == (0, f"{out}\n{hub.url}/me/mine\n"), done.err
    assert [(repo["organization"], repo["name"]) for repo in uploads.repos] == [("me", "mine")]
    assert uploads.repos[0].get("private", uploads.repos[0].get("visibility")) in {True, "private"}
    names = {"README.md", "config.json", "model.safetensors"}
    assert uploads.files == {name: (out / name).read_bytes() for name in names}
    # What others are told to run names the repository, not a folder of this machine.
    assert b"--model me/mine\n" in uploads.files["README.md"]
    assert b"\n# mine\n" in uploads.files["README.md"]
    sent = [headers.get("authorization", headers.get("Authorization")) for headers in hub.headers]
    assert "Bearer hf_secret" in sent


@pytest.mark.parametrize(
    "where", ["/api/repos/create", "/api/models/me/mine/commit/main", "/large"]
)
def test_a_push_that_fails_says_how_to_do_it_later(hub, nsarm_train, micro_folder, tmp_path, where):
    uploads = Uploads(hub, "me/mine")
    refused = {key: lambda _body: (403, b"{}") for key in hub.receivers if key[1] == where}
    hub.receivers |= refused
    if not refused:
        uploads._keeper = lambda _oid: lambda _body: (403, b"")
    out = tmp_path / "exported"
    done = nsarm_train("export", micro_folder, out, "--push", "me/mine")
    assert done.code == 6
    assert "Traceback" not in done.err
    assert "error: me/mine: cannot be uploaded (" in done.err
    assert f"the model is in {out}" in done.err
    assert f"hf auth login, then: hf upload me/mine {out}" in done.err
    assert (out / "model.safetensors").exists()


@pytest.mark.parametrize("name", ["mine", "me/mine/again", "me/bad name", "http://x/y"])
def test_a_name_that_cannot_be_is_refused_before_anything_is_written(
    nsarm_train, micro_folder, tmp_path, name
):
    done = nsarm_train("export", micro_folder, tmp_path / "x", "--push", name)
    assert done.code == 2
    assert not (tmp_path / "x").exists()


def test_private_alone_makes_no_sense(nsarm_train, micro_folder, tmp_path):
    assert nsarm_train("export", micro_folder, tmp_path / "x", "--private").code == 2
    assert not (tmp_path / "x").exists()
