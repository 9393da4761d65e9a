"""GPU discovery on machines of recorded shapes: inventory, resources, labels, slices, faults."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from fake_nvml import Board, FakeNvml, a100_pairs, hgx, l4

from glebe.gpu import catalogue
from glebe.node.devices import nvml
from glebe.node.devices.access import access
from glebe.node.devices.health import ECC, LOST, ROWS, XID, Fault, Watch
from glebe.node.devices.inventory import SWITCH, Inventory, resources, single_fault
from glebe.node.devices.labels import family, node_labels
from glebe.node.devices.simulated import inventory_of
from glebe.node.devices.slices import ISLAND, LINKS, device_name, devices, names, slices
from glebe.node.devices.topology import choose, closeness, domains

H100 = "NVIDIA H100 80GB HBM3"


def found(machine: FakeNvml, sysfs: Path | None = None) -> Inventory:
    return nvml.discover(machine, str(sysfs or "/nowhere"))


def mixed() -> FakeNvml:
    machine = hgx(2)
    machine.boards[1].partition("3g.40gb", "2g.20gb", "1g.10gb")
    return machine


@pytest.mark.realtime
def test_nothing_heavy_is_loaded_without_a_driver(tmp_path: Path) -> None:
    assert not nvml.has_driver(str(tmp_path))
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidiactl").touch()
    assert nvml.has_driver(str(tmp_path))
    code = "import glebe.node.process.node, sys; sys.exit('pynvml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    if not nvml.has_driver():
        with pytest.raises(nvml.NoNvml, match=r"NVML Shared Library Not Found|Driver Not Loaded"):
            nvml.load()


def test_an_hgx_machine(tmp_path: Path) -> None:
    for index in range(8):
        bus = f"0000:{0x18 + 0x11 * index:02x}:00.0"
        real = tmp_path / f"devices/pci0000:{0x10 * (index // 2):02x}/0000:00:01.0/{bus}"
        real.mkdir(parents=True)
        (real / "numa_node").write_text(str(index // 4))
        (real / "class").write_text("0x030200\n")
        (tmp_path / "bus/pci/devices").mkdir(parents=True, exist_ok=True)
        (tmp_path / "bus/pci/devices" / bus).symlink_to(real)
    inventory = found(hgx(), tmp_path)
    gpu = inventory.gpus[2]
    assert (len(inventory.gpus), inventory.driver, inventory.cuda) == (8, "570.172.08", (12, 8))
    assert (gpu.product, gpu.memory >> 20, gpu.compute, gpu.bus) == (H100, 81559, (9, 0), "0000:3a:00.0")
    assert (gpu.root, gpu.numa, dict(gpu.links), gpu.mig, gpu.mig_capable) == (
        "pci0000:10",
        0,
        {SWITCH: 18},
        False,
        True,
    )
    assert set(domains(inventory.gpus).values()) == {"island-0"}
    labels = node_labels(inventory, "mixed")
    assert {key: labels[f"nvidia.com/{key}"] for key in ("gpu.product", "gpu.count", "gpu.memory", "gpu.family")} == {
        "gpu.product": "NVIDIA-H100-80GB-HBM3",
        "gpu.count": "8",
        "gpu.memory": "81559",
        "gpu.family": "hopper",
    }
    assert labels["nvidia.com/cuda.driver-version.full"] == "570.172.08"
    assert labels["nvidia.com/cuda.runtime-version.full"] == "12.8"
    assert (labels["nvidia.com/mig.strategy"], labels["nvidia.com/gpu.mode"]) == ("mixed", "compute")
    assert set(catalogue.node_labels(catalogue.find("h100-sxm5-80gb"), 8).items()) <= set(labels.items())


def test_what_the_strategies_offer() -> None:
    inventory = found(mixed())
    whole, parted = inventory.gpus
    parts = tuple(m.uuid for m in parted.instances)
    assert [(m.profile, m.start, m.size) for m in parted.instances] == [
        ("3g.40gb", 0, 4),
        ("2g.20gb", 4, 2),
        ("1g.10gb", 6, 1),
    ]
    assert resources(inventory, "none") == {"nvidia.com/gpu": (whole.uuid, parted.uuid)}
    assert resources(inventory, "mixed") == {
        "nvidia.com/gpu": (whole.uuid,),
        "nvidia.com/mig-3g.40gb": parts[:1],
        "nvidia.com/mig-2g.20gb": parts[1:2],
        "nvidia.com/mig-1g.10gb": parts[2:],
    }
    assert resources(inventory, "single") == {}
    assert single_fault(inventory) == "devices with MIG enabled and disable detected"
    labels = node_labels(inventory, "single")
    assert (labels["nvidia.com/gpu.product"], labels["nvidia.com/gpu.count"]) == (
        "NVIDIA-H100-80GB-HBM3-MIG-INVALID",
        "0",
    )
    labels = node_labels(inventory, "mixed")
    assert labels["nvidia.com/mig-3g.40gb.product"] == "NVIDIA-H100-80GB-HBM3-MIG-3g.40gb"
    assert (labels["nvidia.com/mig-3g.40gb.count"], labels["nvidia.com/mig-3g.40gb.multiprocessors"]) == ("1", "60")
    alike = FakeNvml(*(Board(i, H100).partition(*["1g.10gb"] * 7) for i in range(2)))
    single = found(alike)
    assert len(resources(single, "single")["nvidia.com/gpu"]) == 14
    labels = node_labels(single, "single")
    assert (labels["nvidia.com/gpu.product"], labels["nvidia.com/gpu.count"]) == (
        "NVIDIA-H100-80GB-HBM3-MIG-1g.10gb",
        "14",
    )
    assert single_fault(found(FakeNvml(Board(0, H100, mig=1)))) == "at least one MIG device is enabled but empty"


def test_slices_have_the_drivers_names_and_types() -> None:
    inventory = found(mixed())
    whole, big, middle, _small = devices(inventory, {})
    assert [whole["name"], big["name"], middle["name"]] == ["gpu-0", "gpu-1-mig-3g40gb-9-0", "gpu-1-mig-2g20gb-14-4"]
    attributes = whole["attributes"]
    assert attributes["type"] == {"string": "gpu"}
    assert attributes["cudaComputeCapability"] == {"version": "9.0.0"}
    assert attributes["driverVersion"] == {"version": "570.172.8"}
    assert attributes["cudaDriverVersion"] == {"version": "12.8.0"}
    assert (attributes["brand"], attributes["architecture"]) == ({"string": "Nvidia"}, {"string": "Hopper"})
    assert attributes["resource.kubernetes.io/pciBusID"] == {"string": "0000:18:00.0"}
    assert (attributes[LINKS], attributes[ISLAND]) == ({"int": 18}, {"string": "island-0"})
    assert whole["capacity"] == {"memory": {"value": "81559Mi"}}
    assert big["attributes"]["profile"] == {"string": "3g.40gb"}
    assert big["attributes"]["parentUUID"] == {"string": inventory.gpus[1].uuid}
    assert big["capacity"]["multiprocessors"] == {"value": "60"}
    assert [key for key in big["capacity"] if key.startswith("memorySlice")] == [f"memorySlice{i}" for i in range(4)]
    assert set(names(inventory)) == {d["name"] for d in devices(inventory, {})}
    taint = {"key": XID, "value": "79", "effect": "NoSchedule"}
    tainted = devices(inventory, {inventory.gpus[1].uuid: [taint]})
    assert [d.get("taints") for d in tainted] == [None, [taint], [taint], [taint]]  # the board's is its parts'
    many = Inventory(tuple(g for n in range(20) for g in inventory_of(catalogue.find("h200"), f"n{n}", 8).gpus))
    made = slices("n", "u", devices(many, {}), 3)
    assert [len(s["spec"]["devices"]) for s in made] == [64, 64, 32]
    assert made[0]["spec"]["pool"] == {"name": "n", "generation": 3, "resourceSliceCount": 3}


def test_other_machines() -> None:
    pair = found(a100_pairs())
    assert domains(pair.gpus) == {
        pair.gpus[0].uuid: "island-0",
        pair.gpus[1].uuid: "island-0",
        pair.gpus[2].uuid: "island-2",
        pair.gpus[3].uuid: "island-2",
    }
    lonely = found(l4())
    assert (domains(lonely.gpus), node_labels(lonely, "mixed")["nvidia.com/gpu.family"]) == ({}, "ada-lovelace")
    assert node_labels(lonely, "none").get("nvidia.com/mig.strategy") is None
    assert node_labels(lonely, "none")["nvidia.com/mig.capable"] == "false"
    machine = hgx(2)
    machine.boards[1].lost = True
    broken = found(machine)
    assert ([g.index for g in broken.gpus], broken.lost) == ([0], ("GPU 1: GPU is lost",))
    rack = found(hgx(4, fabric=(bytes(range(16)), 7)))
    assert node_labels(rack, "mixed")["nvidia.com/gpu.clique"] == "00010203-0405-0607-0809-0a0b0c0d0e0f.7"
    assert [family(c) for c in ((7, 0), (7, 5), (8, 0), (8, 9), (10, 0), (99, 0))] == [
        "volta", "turing", "ampere", "ada-lovelace", "blackwell", "undefined",
    ]  # fmt: skip


def test_connected_sets_come_first_and_single_ones_break_no_pair() -> None:
    gpus = found(a100_pairs()).gpus
    assert closeness(gpus[0], gpus[1]) > closeness(gpus[0], gpus[2])
    assert [g.index for g in choose(gpus, 2)] == [0, 1]
    assert [g.index for g in choose(gpus[1:], 2)] == [2, 3]
    assert [g.index for g in choose(gpus[1:], 1)] == [1]  # its partner is in use: 2 and 3 stay a pair
    assert [g.index for g in choose(gpus, 4)] == [0, 1, 2, 3]
    many = inventory_of(catalogue.find("h100-sxm5-80gb"), "n", 16).gpus
    assert len(choose(many, 8)) == 8  # too many sets to compare them all
    assert len({g.root for g in choose(many, 2)}) == 1


def test_simulated_boards_look_like_real_ones() -> None:
    for model, product in (
        ("h100-sxm5-80gb", H100),
        ("a100-sxm4-40gb", "NVIDIA A100-SXM4-40GB"),
        ("t4-16gb", "Tesla T4"),
    ):
        inventory = inventory_of(catalogue.find(model), "n", 2)
        assert inventory.gpus[0].product == product
    assert len({g.uuid for n in ("a", "b") for g in inventory_of(catalogue.find("l4"), n, 4).gpus}) == 8


def test_faults_are_told_once() -> None:
    machine = mixed()
    inventory = found(machine)
    said: list[Fault] = []
    watch = Watch(machine, inventory, said.append)
    machine.xid(machine.boards[0], 13)  # a program's own fault
    machine.xid(machine.boards[0], 79)
    machine.xid(machine.boards[0], 48)
    machine.xid(machine.boards[1], 94, instance=7)  # in one MIG device alone
    for _ in range(4):
        watch.wait(machine.events)
    assert [(f.uuid, f.key, f.value) for f in said] == [
        (inventory.gpus[0].uuid, XID, "79"),
        (inventory.gpus[1].instances[0].uuid, XID, "94"),
    ]
    machine.boards[1].lost = machine.boards[0].rows_failed = True
    watch.ask()
    watch.ask()
    assert [(f.key, f.reason) for f in said[2:]] == [(ROWS, "RowRemapFailure"), (LOST, "GpuLost")]
    assert Fault("u", ECC, "x", "").reason == "DoubleBitEccError"


def test_what_containers_with_images_need(tmp_path: Path) -> None:
    inventory = found(mixed())
    whole, part = inventory.gpus[0].uuid, inventory.gpus[1].instances[0]
    for name in ("nvidiactl", "nvidia-uvm", "nvidia0"):
        (tmp_path / "dev").mkdir(exist_ok=True)
        (tmp_path / "dev" / name).touch()
    library = tmp_path / "usr/lib64/libcuda.so.1"
    library.parent.mkdir(parents=True)
    library.touch()
    capability = tmp_path / "proc/driver/nvidia/capabilities/gpu1/mig/gi7/access"
    capability.parent.mkdir(parents=True)
    capability.write_text("DeviceFileMinor: 66\nDeviceFileMode: 292\n")
    plain = access(inventory, [whole], str(tmp_path))
    assert plain.nodes == ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia0")
    assert [(m.source, m.target, m.read_only) for m in plain.mounts] == [
        (str(library), "/usr/lib64/libcuda.so.1", True)
    ]
    assert access(inventory, [part.uuid], str(tmp_path)).nodes[-2:] == ("/dev/nvidia1", "/dev/nvidia-caps/nvidia-cap66")
    assert access(inventory, [], str(tmp_path)).nodes == ()
    cdi = tmp_path / "etc/cdi/nvidia.yaml"
    cdi.parent.mkdir(parents=True)
    cdi.write_text(
        "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\n"
        "containerEdits: {env: [NVIDIA_VISIBLE_DEVICES=void, A=b],\n"
        "  mounts: [{hostPath: /h, containerPath: /c, options: [ro]}]}\n"
        "devices:\n- {name: '0', containerEdits: {deviceNodes: [{path: /dev/nvidia0}]}}\n"
    )
    edits = access(inventory, [whole], str(tmp_path))
    assert (edits.nodes, dict(edits.env), edits.mounts[0].target) == (("/dev/nvidia0",), {"A": "b"}, "/c")
    assert access(inventory, [part.uuid], str(tmp_path)).env == {}  # the specification does not know it
    assert device_name(inventory.gpus[0]) == "gpu-0"
