"""Devices by name: those with float64 are taken, and what is wrong with another is one sentence."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from robustlab import devices
from robustlab.commands import common, train
from robustlab.devices import choose_device, computes_bfloat16
from robustlab.errors import UserError


def backend(available: bool = True, count: int = 2) -> SimpleNamespace:
    """A module of torch for a kind of device, which remembers the one that was chosen."""
    chosen: list[int] = []
    return SimpleNamespace(is_available=lambda: available, device_count=lambda: count, set_device=chosen.append, chosen=chosen)


def test_the_cpu_and_a_device_that_is_given_are_taken_as_they_are() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device(torch.device("meta")) == torch.device("meta")


def test_threads_are_set_only_when_asked_for() -> None:
    before = torch.get_num_threads()
    try:
        choose_device("cpu")
        assert torch.get_num_threads() == before
        choose_device("cpu", before + 1)
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("name, number", [("xpu", 0), ("xpu:1", 1)])
def test_any_backend_with_float64_is_taken(monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> None:
    fake = backend()
    monkeypatch.setattr(torch, "get_device_module", lambda device: fake)
    monkeypatch.setattr(devices, "_has_float64", lambda device: True)
    assert choose_device(name) == torch.device("xpu", number)
    assert fake.chosen == [number]


def test_under_torchrun_each_process_takes_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch, "get_device_module", lambda device: backend())
    monkeypatch.setattr(devices, "_has_float64", lambda device: True)
    assert choose_device("xpu") == torch.device("xpu", 1)


@pytest.mark.parametrize(
    "name, fake, sentence",
    [
        ("tpu", None, "unknown device 'tpu': use auto, cpu, cuda or cuda:N"),
        ("mps", None, "device 'mps' is not supported: use auto, cpu, cuda or cuda:N"),
        ("xpu", backend(available=False), "device 'xpu' is not available on this machine; try `device=auto`"),
        ("xpu:2", backend(), "there is no xpu:2: this machine has 2 GPUs"),
    ],
)
def test_what_cannot_be_taken_is_one_sentence(monkeypatch: pytest.MonkeyPatch, name: str, fake: object, sentence: str) -> None:
    if fake is not None:
        monkeypatch.setattr(torch, "get_device_module", lambda device: fake)
    with pytest.raises(UserError) as error:
        choose_device(name)
    assert str(error.value) == sentence


def test_a_kind_of_device_that_this_torch_does_not_have_is_not_available() -> None:
    with pytest.raises(UserError, match="device 'hpu' is not available on this machine"):
        choose_device("hpu")


def test_a_device_without_float64_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_device_module", lambda device: backend())
    monkeypatch.setattr(devices, "_has_float64", lambda device: False)
    with pytest.raises(UserError, match="device 'xpu' is not supported, as it has no float64"):
        choose_device("xpu")


def test_float64_is_tried_and_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert devices._has_float64(torch.device("cpu"))
    ones = torch.ones
    monkeypatch.setattr(torch, "ones", lambda n, dtype, device: ones(n, dtype=torch.float32))
    assert not devices._has_float64(torch.device("cpu"))

    def refuses(*args: object, **options: object) -> None:
        raise TypeError("no float64 here")

    monkeypatch.setattr(torch, "ones", refuses)
    assert not devices._has_float64(torch.device("cpu"))


@pytest.mark.parametrize("says", [True, False])
@pytest.mark.parametrize("kind", ["cuda", "xpu"])
def test_an_accelerator_says_itself_whether_bfloat16_is_fast_there(monkeypatch: pytest.MonkeyPatch, kind: str, says: bool) -> None:
    """Emulated it is not."""
    told = SimpleNamespace(is_bf16_supported=lambda including_emulation=True: including_emulation or says)
    monkeypatch.setattr(torch, "get_device_module", lambda device: told)
    assert computes_bfloat16(torch.device(kind)) is says


@pytest.mark.parametrize("instructions", ["_is_avx512_bf16_supported", "_is_amx_tile_supported"])
def test_a_cpu_has_instructions_for_bfloat16_or_is_slow_at_it(monkeypatch: pytest.MonkeyPatch, instructions: str) -> None:
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False)
    assert not computes_bfloat16(torch.device("cpu"))
    monkeypatch.setattr(torch.cpu, instructions, lambda: True)
    assert computes_bfloat16(torch.device("cpu"))


def test_a_device_that_says_nothing_of_bfloat16_is_slow_at_it() -> None:
    assert not computes_bfloat16(torch.device("meta"))


def test_commands_reach_the_same_functions_by_their_own_names() -> None:
    """Tools put other ones in their places."""
    assert train.choose_device is common.choose_device is devices.choose_device
    assert train.computes_bfloat16 is common.computes_bfloat16 is devices.computes_bfloat16


@pytest.mark.parametrize("threads", [0, -1, 1025, 100_000, 10**30, "many", 1.5])
def test_threads_that_no_machine_has_are_refused_before_torch_is_told(threads):
    before = torch.get_num_threads()
    with pytest.raises(UserError, match="it must be|is not a whole number"):
        choose_device("cpu", threads)
    assert torch.get_num_threads() == before
