"""What a container sees and may, on the machine's own file system."""

# ruff: noqa: ASYNC240 - small files

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from container_world import groups_of, in_group, lines, machine, said, until, world

from glebe.node.containers import cgroups, supervisor
from glebe.node.contracts import Identity, Limits, Mount
from glebe.node.values.environment import ConfigError

pytestmark = pytest.mark.realtime
needs_mounts = pytest.mark.skipif(not machine().mounts, reason="mount namespaces cannot be made here")
needs_pids = pytest.mark.skipif(not machine().pids, reason="PID namespaces cannot be made here")
needs_groups = pytest.mark.skipif(
    not {"memory", "cpu", "pids"} <= machine().groups.controllers, reason="cgroups cannot be written here"
)
needs_root = pytest.mark.skipif(os.geteuid() != 0 or not machine().mounts or machine().user, reason="needs root")
NOWHERE = "/glebe-test-no-such-directory"


@needs_mounts
async def test_volumes_appear_where_the_pod_says_and_only_there(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").write_text("one\n")
    (tmp_path / "file").write_text("two\n")
    mounts = (
        Mount(str(tmp_path / "data"), f"{NOWHERE}/deep"),
        Mount(str(tmp_path / "file"), "/etc/glebe-test/x.conf", read_only=True),
    )
    script = f"cat {NOWHERE}/deep/a /etc/glebe-test/x.conf; test -s /etc/passwd && echo etc; echo b > {NOWHERE}/deep/b"
    script += "; echo no > /etc/glebe-test/x.conf || echo kept"
    async with world(tmp_path) as w:
        text = await w.say("sh", "-c", script, mounts=mounts)
        assert text.startswith("one\ntwo\netc\n")
        assert "Read-only file system" in text
        assert "kept\n" in text
    assert (tmp_path / "data" / "b").read_text() == "b\n"
    assert not Path(NOWHERE).exists()
    assert not Path("/etc/glebe-test").exists()


@needs_mounts
async def test_the_machine_is_real_and_what_is_new_beside_a_made_mount_point_vanishes(tmp_path: Path) -> None:
    parent = tmp_path / "parent"
    (parent / "old").mkdir(parents=True)
    (parent / "link").symlink_to("old")
    (tmp_path / "v").mkdir()
    mounts = (Mount(str(tmp_path / "v"), f"{parent}/new/mount"),)
    script = f"cd {parent}; echo real > link/f; echo lost > g; echo kept > new/mount/h; ls"
    async with world(tmp_path) as w:
        assert await w.say("sh", "-c", script, mounts=mounts) == "g\nlink\nnew\nold\n"
    assert (parent / "old" / "f").read_text() == "real\n"
    assert sorted(path.name for path in parent.iterdir()) == ["link", "old"]
    assert (tmp_path / "v" / "h").read_text() == "kept\n"


@needs_mounts
async def test_a_volume_in_a_volume_and_a_source_that_is_missing(tmp_path: Path) -> None:
    for name in ("outer", "inner"):
        (tmp_path / name).mkdir()
    (tmp_path / "inner" / "x").write_text("in\n")
    mounts = (Mount(str(tmp_path / "inner"), f"{NOWHERE}/sub"), Mount(str(tmp_path / "outer"), NOWHERE))
    async with world(tmp_path) as w:
        assert await w.say("sh", "-c", f"cat {NOWHERE}/sub/x; echo y > {NOWHERE}/y", mounts=mounts) == "in\n"
        assert (tmp_path / "outer" / "y").exists()
        with pytest.raises(ConfigError, match="No such file"):
            w.prepare("true", mounts=(Mount(str(tmp_path / "none"), NOWHERE),))
        with pytest.raises(ConfigError, match="cannot be mounted"):
            w.prepare("true", mounts=(Mount(str(tmp_path / "inner"), "/etc/passwd"),))


@needs_mounts
async def test_read_only_root(tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    (tmp_path / "machine").mkdir()
    script = f"echo x > {tmp_path}/machine/no; echo x > {NOWHERE}/yes; echo x > /dev/null && echo fine"
    async with world(tmp_path) as w:
        mounts = (Mount(str(tmp_path / "v"), NOWHERE),)
        text = await w.say("sh", "-c", script, mounts=mounts, read_only_root=True)
    assert "Read-only file system" in text
    assert "fine\n" in text
    assert (tmp_path / "v" / "yes").exists()
    assert not (tmp_path / "machine" / "no").exists()


@needs_mounts
async def test_the_platforms_own_directory_is_hidden(tmp_path: Path) -> None:
    secret, work, volume = (tmp_path / "platform" / name for name in ("keys", "pods/work", "pods/volume"))
    for path in (secret, work, volume):
        path.mkdir(parents=True)
        (path / "f").write_text(f"{path.name}\n")
    script = f"cat f {NOWHERE}/f; ls {tmp_path}/platform; echo new > made"
    (tmp_path / "link").symlink_to("platform")
    for base in ("platform", "link"):
        async with world(tmp_path, hidden=[tmp_path / base]) as w:
            own = tmp_path / base / "pods" / "work"
            mounts = (Mount(str(volume), NOWHERE),)
            assert await w.say("sh", "-c", script, cwd=str(own), mounts=mounts) == "work\nvolume\npods\n"
        shutil.rmtree(tmp_path / "pods")
    assert (work / "made").read_text() == "new\n"


@needs_pids
async def test_own_processes_and_host_name(tmp_path: Path) -> None:
    script = "echo $(ls /proc | grep -c '^[0-9]'); hostname; kill -9 1; (setsid sleep 60 &) ; sleep 0.02; echo end"
    async with world(tmp_path) as w:
        count, name, *rest = (await w.say("sh", "-c", script, hostname="web-0")).splitlines()
        assert int(count) <= 5
        assert name == ("web-0" if machine().hostname else os.uname().nodename)
        assert rest == ["end"]
        outside = await w.say("sh", "-c", "test -d /proc/$SUPERVISOR", host_pids=True, env={"SUPERVISOR": "1"})
        assert outside == ""


@needs_pids
async def test_signals_reach_a_program_that_does_not_expect_them(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        run = await w.start("sleep", "60", grace=5.0)
        run.stop(5)
        end = await run.wait()
        assert end is not None
        assert (end.code, end.signal) == (143, signal.SIGTERM)
        script = "trap 'echo hup; exit 3' USR1; echo up; while :; do sleep 0.02; done"
        run = await w.start("sh", "-c", script, stop_signal="SIGUSR1")
        await until(run.log.read_bytes)
        run.stop(5)
        end = await run.wait()
        assert end is not None
        assert (end.code, lines(run)) == (3, "up\nhup\n")
        with pytest.raises(ConfigError, match="SIGNOT"):
            w.prepare("true", stop_signal="SIGNOT")


@needs_root
async def test_identity_and_capabilities(tmp_path: Path) -> None:
    script = "id -u; id -G; grep -E 'NoNewPrivs|CapBnd' /proc/self/status | cut -f2"
    some = Identity(user=65534, group=12, groups=(7, 8), no_new_privileges=True, drop_capabilities=("ALL",))
    async with world(tmp_path) as w:
        assert (await w.say("sh", "-c", script, identity=some)).split() == ["65534", "12", "7", "8", "0" * 16, "1"]
        usual = (await w.say("sh", "-c", script)).split()
        assert usual[-2:] == ["00000000a80425fb", "0"]
        added = Identity(add_capabilities=("NET_ADMIN",), drop_capabilities=("CAP_CHOWN",))
        assert (await w.say("sh", "-c", script, identity=added)).split()[-2] == "00000000a80435fa"
        with pytest.raises(ConfigError, match="CAP_NONSENSE"):
            w.prepare("true", identity=Identity(add_capabilities=("NONSENSE",)))


@needs_root
async def test_a_pod_does_not_turn_the_machines_knobs(tmp_path: Path) -> None:
    script = "echo 1 > /proc/sys/vm/swappiness || echo no; mount -t tmpfs x /mnt 2>/dev/null || echo neither"
    async with world(tmp_path) as w:
        assert {"no", "neither"} <= set((await w.say("sh", "-c", script)).splitlines())


@needs_groups
async def test_memory_limit_kills_and_is_said(tmp_path: Path) -> None:
    hog = "x = []\nwhile True: x.append(bytearray(1 << 20))"
    async with world(tmp_path) as w:
        run = await w.start(sys.executable, "-c", hog, limits=Limits(memory=64 << 20))
        end = await run.wait()
        assert end is not None
        assert (end.code, end.reason) == (137, "OOMKilled")
        assert w.containers.oom(run)
        assert groups_of(run) == []


@needs_groups
async def test_limits_are_the_kernels_and_change_while_it_runs(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        run = await w.start("sleep", "60", limits=Limits(cpu_request=250, cpu=500, memory=64 << 20, processes=50))
        assert len(in_group(run)) == 1
        name = cgroups.group_name(w.containers._settings.key, run.path)
        before = dict(cgroups.values(machine().groups, name, Limits(250, 500, 64 << 20, 50)))
        assert all(Path(path).read_text().strip() == text for path, text in before.items())
        w.containers.resize(run, Limits(cpu_request=250, cpu=1000, memory=96 << 20))
        after = dict(cgroups.values(machine().groups, name, Limits(250, 1000, 96 << 20)))
        changed = {path: text for path, text in after.items() if not path.endswith("pids.max")}
        assert all(Path(path).read_text().strip() == text for path, text in changed.items())
        usage = await w.containers.usage(run)
        assert usage is not None
        assert usage.processes == 1
        assert 0 < usage.memory_working_set < 96 << 20
        run.stop(0)
        await run.wait()
        assert groups_of(run) == []
        assert await w.containers.usage(run) is None


async def test_memory_limit_without_cgroups_is_watched(tmp_path: Path) -> None:
    hog = "import time\nx = bytearray(80 << 20)\nfor i in range(0, len(x), 4096): x[i] = 1\ntime.sleep(60)"
    async with world(tmp_path, isolate=False) as w:
        run = await w.start(sys.executable, "-c", hog, limits=Limits(memory=60 << 20))
        end = await run.wait()
        assert end is not None
        assert (end.code, end.reason) == (137, "OOMKilled")
        fine = await w.start("sleep", "60", limits=Limits(memory=60 << 20))
        usage = await w.containers.usage(fine)
        assert usage is not None
        assert usage.memory_working_set > 0


@pytest.mark.parametrize("isolate", [True, False])
async def test_a_killed_supervisor_leaves_nothing(tmp_path: Path, isolate: bool) -> None:
    (tmp_path / "v").mkdir()
    mounts = (Mount(str(tmp_path / "v"), NOWHERE),) if isolate and machine().mounts else ()
    async with world(tmp_path, isolate=isolate) as w:
        script = "setsid sleep 60 & setsid setsid sleep 61 & echo up; sleep 62"
        run = await w.start("sh", "-c", script, mounts=mounts, limits=Limits(memory=64 << 20))
        await until(run.log.read_bytes)
        streams = await w.containers.execute(run, ["sleep", "63"])
        holder = run.supervisor
        assert holder is not None
        os.kill(holder.pid, signal.SIGKILL)
        assert await run.wait() is None
        assert await streams.wait() == 137
        await streams.close()
        await until(lambda: not _marked(run.path))
        assert groups_of(run) == []
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()


@needs_groups
async def test_cgroups_of_an_agent_and_a_supervisor_that_were_killed_are_removed_by_the_next_agent(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as w:
        run = await w.start("sleep", "60")
        known = await w.start("sleep", "60")
        holder = run.supervisor
        assert holder is not None
        os.kill(holder.pid, signal.SIGKILL)
        await until(lambda: not holder.alive and not in_group(run))
        assert groups_of(run)
        await w.containers.clean([known])
        assert groups_of(run) == []
        assert len(in_group(known)) == 1


def _marked(run: Path) -> list[int]:
    mark = f"{supervisor.MARK}={run}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


async def test_further_processes_share_the_containers_view(tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "f").write_text("seen\n")
    if not machine().mounts:
        pytest.skip("mount namespaces cannot be made here")
    async with world(tmp_path) as w:
        run = await w.start("sleep", "60", mounts=(Mount(str(tmp_path / "v"), NOWHERE),), hostname="h")
        streams = await w.containers.execute(run, ["sh", "-c", f"cat {NOWHERE}/f; kill -9 -1; exit 0"])
        assert (await said(streams))[1] == b"seen\n"
        await streams.close()


def test_a_supervisor_imports_nothing_of_glebe_but_its_own() -> None:
    command = [sys.executable, "-I", "-S", "-X", "importtime", str(supervisor.__file__), "/nonexistent"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    names = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time")}
    mine = sorted(name for name in names if name.startswith("glebe") and ".supervise" not in name)
    assert mine == ["glebe", "glebe.node", "glebe.node.containers"]
    assert not names & {"json", "re", "typing", "asyncio", "contextlib", "collections", "signal", "socket"}


@needs_mounts
async def test_devices_work_beside_a_mount_in_dev(tmp_path: Path) -> None:
    (tmp_path / "message").touch()
    script = (
        "echo x > /dev/null; head -c 4 /dev/zero | wc -c; echo last words > /dev/termination-log; echo > /dev/shm/f"
    )
    mounts = (Mount(str(tmp_path / "message"), "/dev/termination-log"),)
    async with world(tmp_path) as w:
        for read_only in (False, True):
            shm = f"/dev/shm/glebe-test-{os.getpid()}"
            text = await w.say("sh", "-c", script.replace("/dev/shm/f", shm), mounts=mounts, read_only_root=read_only)
            Path(shm).unlink()
            assert text == "4\n"
            assert (tmp_path / "message").read_text() == "last words\n"
        terminal = await w.start("sh", "-c", "tty && echo hello > $(tty)", tty=True, mounts=mounts)
        assert (await terminal.wait()) is not None
        assert lines(terminal).replace("\r", "").endswith("hello\n")


@pytest.mark.parametrize("isolate", [True, False])
async def test_no_descriptor_of_ours_reaches_a_container(tmp_path: Path, isolate: bool) -> None:
    async with world(tmp_path, isolate=isolate) as w:
        run = await w.start("sh", "-c", "ls /proc/self/fd; sleep 60", limits=Limits(memory=64 << 20))
        await until(run.log.read_bytes)
        streams = await w.containers.execute(run, ["ls", "/proc/self/fd"])
        assert (await said(streams))[1].split() == [b"0", b"1", b"2", b"3"]  # 3 is the directory that ls reads
        await streams.close()
        assert lines(run).split() == ["0", "1", "2", "3"]
