"""What is deleted as a whole, and what stops that before anything goes."""

import contextlib
import os
import shutil
import subprocess
import tempfile

import pytest

from meta_pseudo_labels.utils import deleting
from meta_pseudo_labels.utils.checkpoint_files import remove_scratch
from meta_pseudo_labels.utils.deleting import check_deletable, delete
from meta_pseudo_labels.utils.files import locked, replaces, write_whole
from meta_pseudo_labels.utils.settings import ConfigError

NOBODY = 65_534
as_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can be somebody else"
)


@pytest.fixture
def run():
    """A folder that other users may look into."""
    folder = tempfile.mkdtemp()
    os.chmod(folder, 0o755)
    for name in ("first", "second", "second/deep"):
        os.mkdir(f"{folder}/{name}")
        write_whole(f"{folder}/{name}/file", name)
    yield folder
    shutil.rmtree(folder)


def contents(folder):
    return sorted(
        os.path.join(where, name)
        for where, folders, files in os.walk(folder)
        for name in folders + files
    )


def refused(*paths):
    """Why they are not deleted; all of them are still there."""
    folder = os.path.dirname(paths[0])
    before = contents(folder)
    with pytest.raises(ConfigError, match="so nothing was deleted") as caught:
        delete(*paths)
    assert contents(folder) == before
    message = str(caught.value)
    assert "\n" not in message
    return message


@contextlib.contextmanager
def user(number):
    """Has another user do what follows."""
    os.seteuid(number)
    try:
        yield
    finally:
        os.seteuid(0)


@contextlib.contextmanager
def mounted(source, target):
    command = ["mount", "--bind", source, target]
    if shutil.which("mount") is None or subprocess.run(command).returncode:
        pytest.skip("Nothing can be mounted here.")
    try:
        yield
    finally:
        subprocess.run(["umount", target], check=True)


def test_files_folders_and_links_are_deleted(run):
    os.symlink(f"{run}/second", f"{run}/link")
    os.symlink("nowhere", f"{run}/first/broken")
    delete(f"{run}/first", f"{run}/link", f"{run}/absent")
    assert contents(run) == [
        f"{run}/second",
        f"{run}/second/deep",
        f"{run}/second/deep/file",
        f"{run}/second/file",
    ]


@pytest.mark.parametrize("within", ["second", "second/deep", "second/file"])
def test_what_is_mounted_stays(run, tmp_path, within):
    """Also on the same device, where the number of the device says nothing."""
    target = f"{run}/{within}"
    source = tmp_path / "with a blank"
    if os.path.isdir(target):
        source.mkdir()
        (source / "precious").write_text("")
    else:
        source.write_text("precious")
    with mounted(source, target):
        assert target in refused(f"{run}/first", f"{run}/second")
    assert source.exists()
    delete(f"{run}/first", f"{run}/second")
    assert contents(run) == []


def test_a_mount_is_known_by_its_device_too(run, monkeypatch):
    """Where /proc has no list of them."""
    monkeypatch.setattr(deleting, "_MOUNTS", "/nowhere")
    lstat = os.lstat

    def elsewhere(path):
        status = list(lstat(path))
        if str(path).endswith("deep"):
            status[2] += 1
        return os.stat_result(status)

    monkeypatch.setattr(deleting.os, "lstat", elsewhere)
    assert "deep is a mount" in refused(f"{run}/first", f"{run}/second")


def test_names_in_the_list_of_mounts_are_read(tmp_path, monkeypatch):
    listed = tmp_path / "mountinfo"
    listed.write_text("36 35 98:0 /a /b\\040c\\134d rw - ext3 /dev/r rw\n")
    monkeypatch.setattr(deleting, "_MOUNTS", str(listed))
    assert deleting.mount_points() == {"/b c\\d"}


@as_root
def test_what_may_not_be_changed_stays(run):
    """Found before the folder that comes first is gone."""
    os.chown(run, NOBODY, -1)
    for path in (*contents(f"{run}/first"), f"{run}/first", f"{run}/second"):
        os.chown(path, NOBODY, -1)
    with user(NOBODY):
        assert "somebody else" in refused(f"{run}/first", f"{run}/second")
    for path in contents(f"{run}/second"):
        os.chown(path, NOBODY, -1)
    os.chmod(f"{run}/second/deep", 0o500)
    with user(NOBODY):
        message = refused(f"{run}/first", f"{run}/second")
        assert "deep may not be changed by you" in message
    os.chmod(f"{run}/second/deep", 0o300)
    with user(NOBODY):
        message = refused(f"{run}/first", f"{run}/second")
        assert "deep cannot be read" in message
    os.chmod(f"{run}/second/deep", 0o700)
    os.chmod(run, 0o555)
    with user(NOBODY):
        assert "removed by you" in refused(f"{run}/first", f"{run}/second")
    os.chmod(run, 0o755)
    with user(NOBODY):
        delete(f"{run}/first", f"{run}/second")
    assert contents(run) == []


@pytest.mark.parametrize("flag", ["i", "a"])
@pytest.mark.parametrize("within", ["", "second", "second/deep/file"])
def test_what_chattr_protects_stays(run, within, flag):
    """Though no permission says so, and root is refused as well."""
    target = f"{run}/{within}"
    command = ["chattr", f"+{flag}", target]
    if shutil.which("chattr") is None or subprocess.run(command).returncode:
        pytest.skip("Nothing can be protected here.")
    try:
        message = refused(f"{run}/first", f"{run}/second")
    finally:
        subprocess.run(["chattr", f"-{flag}", target], check=True)
    assert f"{target if within else f'{run}/first'} may not be" in message
    delete(f"{run}/first", f"{run}/second")
    assert contents(run) == []


def test_an_odd_name_is_said_in_one_line(run, monkeypatch):
    odd = f"{run}/second/two\nlines"
    os.mkdir(odd)
    found = {os.path.realpath(odd)}
    monkeypatch.setattr(deleting, "mount_points", lambda: found)
    assert "two\\nlines" in refused(f"{run}/second")


@as_root
def test_a_strangers_file_stays_though_root_could_delete_it(run):
    os.chown(f"{run}/second/file", NOBODY, -1)
    assert "belongs to somebody else" in refused(f"{run}/second")
    for path in (run, *contents(run)):  # All of one stranger: it is his run.
        os.chown(path, NOBODY, -1)
    check_deletable(f"{run}/second")


@as_root
def test_a_folder_open_to_all_protects_its_owners_files(run):
    os.chmod(run, 0o1777)
    with user(NOBODY):
        assert "only by its owner" in refused(f"{run}/first")


def test_a_folder_that_cannot_be_emptied_is_said_in_a_line(run, monkeypatch):
    def busy(path):
        raise OSError(16, "Device or resource busy", path)

    monkeypatch.setattr(deleting.shutil, "rmtree", busy)
    with pytest.raises(ConfigError, match="first cannot be deleted: Device"):
        delete(f"{run}/first")


def test_scratch_of_checkpoints_with_a_mount_in_it_stays(run, tmp_path):
    os.mkdir(f"{run}/step-2_temp")
    write_whole(f"{run}/step-1.data-00000-of-00001", "no index")
    (tmp_path / "precious").write_text("")
    with mounted(tmp_path, f"{run}/step-2_temp"):
        with pytest.raises(ConfigError, match="step-2_temp is a mount"):
            remove_scratch(run)
        assert os.path.exists(f"{run}/step-1.data-00000-of-00001")
    assert (tmp_path / "precious").exists()
    remove_scratch(run)
    assert sorted(os.listdir(run)) == ["first", "second"]


def test_links_are_not_written_through(run, tmp_path):
    """Nothing outside is emptied, where its name is that of a file of ours."""
    precious = tmp_path / "precious"
    precious.write_text("content")
    os.symlink(precious, f"{run}/lock")
    with pytest.raises(KeyError), replaces(f"{run}/file.json") as scratch:
        os.symlink(precious, scratch)
        raise KeyError
    write_whole(f"{run}/file.json", "{}")
    with pytest.raises(ConfigError, match="lock cannot be locked"):
        with locked(run):
            pass
    assert precious.read_text() == "content"
    with open(f"{run}/file.json") as file:
        assert file.read() == "{}"
