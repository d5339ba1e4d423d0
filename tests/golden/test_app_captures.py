"""Captures of 169 applications, some malicious or fuzzed: each is read whole, or refused in one clear line."""

import pytest

from agent.errors import CaptureError, CaptureReason
from tests.support.replays import replayed

CLEAR = {
    CaptureReason.LINK_TYPE,
    CaptureReason.TRUNCATED,
    CaptureReason.EMPTY,
    CaptureReason.FOREIGN,
}


def test_every_application_capture_is_read_or_refused_in_one_line(captures):
    n_read = 0
    refused: list[CaptureError] = []
    for path in sorted((captures / "apps").iterdir()):
        try:
            n_read += replayed(path, no_model=True).report.n_frames > 0
        except CaptureError as error:
            refused.append(error)
    assert {error.reason for error in refused} <= CLEAR
    assert not [error for error in refused if "\n" in str(error)]
    assert n_read >= 160


@pytest.mark.parametrize("folder", ["ble", "wifi"])
def test_a_radio_capture_is_not_read_by_this_version(captures, folder):
    for path in sorted((captures / folder).iterdir()):
        with pytest.raises(CaptureError, match="not read by this version"):
            replayed(path, no_model=True)
