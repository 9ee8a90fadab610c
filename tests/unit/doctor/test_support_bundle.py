"""The support bundle: planted secrets do not leave, links are not followed, nothing is overwritten."""

from __future__ import annotations

import json
import os
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest

from smallq_deploy.base.errors import UsageError
from smallq_deploy.operate.doctor import diagnose
from smallq_deploy.operate.doctor_redaction import MARK, Redactor, is_secret_name
from smallq_deploy.operate.support_bundle import TOP, read_inside, write_bundle
from tests.support.toolkits import write
from tests.unit.doctor.conftest import Machine

KEY = """\
-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAA
AAAABG5vbmUAAAAEbm9uZQ
-----END OPENSSH PRIVATE KEY-----"""
# Text as it may stand in a log, and the part of it that must not be seen again.
PLANTED = [
    ("export HF_TOKEN=hf-value-1234", "hf-value-1234"),
    ("password: hunter2hunter2", "hunter2hunter2"),
    ("DB_PASSWORD='with a blank'", "with a blank"),
    ("curl --token s3cr3t-t0ken https://x", "s3cr3t-t0ken"),
    ("mysql --password=s3cr3t-pass", "s3cr3t-pass"),
    ("proxy http://bob:builder99@proxy:3128", "builder99"),
    ("git clone https://oauth2:tok99tok@git/x.git", "tok99tok"),
    ("GET /a.run?X-Amz-Signature=deadbeefdead&x=1", "deadbeefdead"),
    ("Authorization: Bearer abc.def.ghijkl", "abc.def.ghijkl"),
    ("authorization=Basic Ym9iOmJ1aWxkZXI=", "Ym9iOmJ1aWxkZXI"),
    ("Cookie: sid=31d4d96e407aad42", "31d4d96e407aad42"),
    ("token ghp_0123456789abcdefghijABCDEFGHIJ012345", "ghp_0123456789abcdefghij"),
    ("key AKIAIOSFODNN7EXAMPLE used", "AKIAIOSFODNN7EXAMPLE"),
    ("jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcdefghijk", "eyJzdWIiOiIxMjM0In0"),
    ('{"apiKey": "zzz-api-key", "level": 3}', "zzz-api-key"),
    ("secret_access_key = wJalrXUtnFEMIK7MDENG", "wJalrXUtnFEMIK7MDENG"),
    (KEY, "b3BlbnNzaC1rZXktdjEAAAA"),
    (KEY.partition("\n")[2], "AAAABG5vbmUAAAAEbm9uZQ"),  # the end of a log may begin within a key
    (KEY.rpartition("\n")[0], "AAAABG5vbmUAAAAEbm9uZQ"),
]


@pytest.mark.parametrize(("text", "secret"), PLANTED)
def test_planted_secrets_are_replaced(text: str, secret: str) -> None:
    redactor = Redactor()
    assert secret not in redactor.text(text)
    assert redactor.count >= 1
    assert secret not in redactor.text(f"before\n{text}\nafter")


@pytest.mark.parametrize(
    "text",
    [
        "ASCEND_OPP_PATH=/usr/local/Ascend/cann-8.5.0/opp",
        "7 passed, 0 failed; compass=north; author: nobody; PWD=/srv; bypass=1",
        "sha256=9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0ab8d0a0e1b1a5e7a1c5d2",
        "load_priority=customize,other",
        '{"verdict": "pass", "cases": [{"name": "one-key", "passed": true}]}',
        "[ERROR] RUNTIME(4711,python3):2026-01-31-12:00:00 kernel launch failed, retCode=0x7110002",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert Redactor().text(text) == text


def test_values_of_secret_variables_are_replaced_wherever_they_stand() -> None:
    redactor = Redactor.of_environment([{"CI_DEPLOY_PASSWORD": "plainword77", "LANG": "C.UTF-8", "X_TOKEN": "abc"}])
    assert redactor.text("then plainword77 was typed, in C.UTF-8 abc") == f"then {MARK} was typed, in C.UTF-8 abc"


def test_json_keeps_its_form() -> None:
    redactor = Redactor()
    record = {"password": ["a", "b"], "nested": [{"auth_token": 5, "name": "x"}], "passed": 3, "token": None}
    assert redactor.value(record) == {
        "password": MARK,
        "nested": [{"auth_token": MARK, "name": "x"}],
        "passed": 3,
        "token": None,
    }
    lines = redactor.document('{"a": 1, "secret": "s3cret-1"}\n{"b": "password=s3cret-2"}\n').splitlines()
    assert [json.loads(line) for line in lines] == [{"a": 1, "secret": MARK}, {"b": f"password={MARK}"}]
    assert is_secret_name("sshPrivateKey") and not is_secret_name("keys")


class Bundle:
    """A written bundle, read back."""

    def __init__(self, machine: Machine, path: Path, *, environ: dict[str, str] | None = None, **options: Any) -> None:
        context = machine.context(environ)
        self.written = write_bundle(
            path, diagnose(context).to_dict(), context.environment, context.store, context.environ,
            root=machine.root, **options,
        )  # fmt: skip
        with tarfile.open(path) as archive:
            self.entries = archive.getmembers()
            self.files = {
                entry.name.removeprefix(TOP + "/"): archive.extractfile(entry).read().decode()  # type: ignore[union-attr]
                for entry in self.entries
            }

    @property
    def everything(self) -> str:
        return "\n".join(self.files.values())


@pytest.fixture
def data(own_home: Path) -> Path:
    return own_home / "data/smallq-deploy"


def test_what_is_in_it(machine: Machine, tmp_path: Path, data: Path, own_home: Path) -> None:
    write(data / "logs/build-1.log", "x" * 300_000 + "\nthe last line\n")
    write(own_home / "ascend/log/debug/plog/plog-1_2026.log", "[ERROR] tiling failed\n")
    write(machine.home / "opp/vendors/other/version.info", "custom_opp_compiler_version=8.5.0\n")
    path = tmp_path / "b.tar.gz"
    bundle = Bundle(machine, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert set(bundle.written.members) == set(bundle.files)
    assert bundle.written.size == path.stat().st_size
    assert all(entry.isreg() and entry.mode == 0o600 and entry.uname == "" for entry in bundle.entries)
    for name in ("doctor.json", "detect.json", "npu-smi.txt", "environment.txt", "opp/config.ini", "store/state",
                 "store/history", "store/generations/0001", "opp/customize/files.txt", "opp/other/version.info",
                 "logs/plog/debug/plog-1_2026.log"):  # fmt: skip
        assert name in bundle.files, sorted(bundle.files)
    checks = json.loads(bundle.files["doctor.json"])["checks"]
    assert {item["name"] for item in checks} >= {"toolkit", "resolution", "left-behind"}
    assert "libcust_opapi.so" in bundle.files["opp/customize/files.txt"]
    log = bundle.files["logs/build/build-1.log"]
    assert log.endswith("\nthe last line\n") and len(log) < 200_000
    assert not any("\x7fELF" in text for text in bundle.files.values())


def test_secrets_planted_everywhere_do_not_leave(
    machine: Machine, tmp_path: Path, data: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI_JOB_TOKEN", "value-of-a-variable-1")
    environ = machine.shell(
        SMALLQ_DEPLOY_PASSWORD="value-of-a-variable-2", HTTPS_PROXY="http://bob:builder99@proxy:3128", MY="private"
    )
    text = "\n".join(text for text, _ in PLANTED if "PRIVATE" not in text) + "\nseen value-of-a-variable-1\n" + KEY
    write(data / "logs/build-1.log", text)
    write(own_home / "ascend/log/run/plog/plog-1.log", text + "\nseen value-of-a-variable-2\n")
    write(data / "packages/0123456789abcdef/provenance.json", json.dumps({"registry": {"password": "pw-in-json"}}))
    with open(machine.store.history, "a") as stream:
        stream.write(json.dumps({"txid": "1", "vendor": "customize", "reason": "password=pw-in-history"}) + "\n")
    machine.store.config_ini.write_text("load_priority=customize\n# token: pw-in-config\n")
    everything = Bundle(machine, tmp_path / "b.tar.gz", environ=environ).everything
    planted = [secret for text, secret in PLANTED if "PRIVATE" not in text]
    planted += ["value-of-a-variable-1", "value-of-a-variable-2", "b3BlbnNzaC1rZXktdjEAAAA"]
    planted += ["pw-in-json", "pw-in-history", "pw-in-config", "MY=private"]
    assert [secret for secret in planted if secret in everything] == []
    assert "load_priority=customize" in everything


def test_links_do_not_lead_out(machine: Machine, tmp_path: Path, data: Path, own_home: Path) -> None:
    secret = write(tmp_path / "outside/shadow", "root:do-not-take-me\n")
    (secret.parent / "provenance.json").write_text('{"x": "do-not-take-me"}')
    (data / "logs").mkdir(parents=True)
    (data / "logs/build-1.log").symlink_to(secret)
    (data / "packages").mkdir()
    (data / "packages/0123456789abcdef").symlink_to(secret.parent)
    (own_home / "ascend/log/run").mkdir(parents=True)
    (own_home / "ascend/log/run/plog").symlink_to(secret.parent)
    (secret.parent / "plog-1.log").write_text("do-not-take-me")
    machine.store.history.unlink()
    machine.store.history.symlink_to(secret)
    (machine.store.vendors / "linked").symlink_to(secret.parent)
    version = machine.live / "version.info"
    version.unlink()
    version.symlink_to(secret)
    os.mkfifo(machine.store.root / "owner.new")
    (machine.store.root / "owner.new").replace(machine.store.root / "owner")
    bundle = Bundle(machine, tmp_path / "b.tar.gz")
    assert "do-not-take-me" not in bundle.everything
    assert any("history" in line for line in bundle.written.missing)
    assert any("regular file" in line for line in bundle.written.missing)
    assert "history" in bundle.files["README.txt"]


def test_read_inside_stays_inside(tmp_path: Path) -> None:
    root = write(tmp_path / "root/sub/file", "here").parents[1]
    write(tmp_path / "other/file", "there")
    (root / "link").symlink_to(tmp_path / "other")
    assert read_inside(root, "sub/file") == b"here"
    for name in ("link/file", "../other/file", "sub/../../other/file", str(tmp_path / "other/file")):
        with pytest.raises(OSError):
            read_inside(root, name)


def test_nothing_is_overwritten(machine: Machine, tmp_path: Path) -> None:
    taken = write(tmp_path / "b.tar.gz", "mine")
    dangling = tmp_path / "link.tar.gz"
    dangling.symlink_to(tmp_path / "target")
    for path, code in (
        (taken, "SUPPORT_FILE_EXISTS"),
        (dangling, "SUPPORT_FILE_EXISTS"),
        (tmp_path / "no/b.tar.gz", "NO_SUPPORT_DIRECTORY"),
    ):
        with pytest.raises(UsageError) as caught:
            Bundle(machine, path)
        assert caught.value.code == code
    assert taken.read_text() == "mine"
    assert not (tmp_path / "target").exists()


def test_anonymous_also_hides_host_user_and_addresses(
    machine: Machine, tmp_path: Path, data: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USER", "alice42")
    host = os.uname().nodename
    write(
        data / "logs/build-1.log", f"{host} 10.20.30.40 fe80::1 aa:bb:cc:dd:ee:ff alice42 in {own_home}/x, CANN 8.5.0\n"
    )
    plain = Bundle(machine, tmp_path / "plain.tar.gz").files["logs/build/build-1.log"]
    assert "10.20.30.40" in plain and "alice42" in plain
    hidden = Bundle(machine, tmp_path / "hidden.tar.gz", anonymous=True)
    log = hidden.files["logs/build/build-1.log"]
    assert log == "<host> <ip> <ip> <mac> <user> in <home>/x, CANN 8.5.0\n"
    assert "alice42" not in hidden.everything and "10.20.30.40" not in hidden.everything
