"""The verdict itself: every cause from its evidence, and what outweighs what."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote.findings.verdict import Evidence, Verdict, by_memory, explained, verdict

CERTAIN: Final = "certain"
LIKELY: Final = "likely"
CASES: tuple[tuple[Evidence, Verdict], ...] = (
    (Evidence(), Verdict("unknown", "guess")),
    (Evidence(memory="machine"), Verdict("kernel-oom", CERTAIN)),
    (Evidence(memory="group"), Verdict("cgroup-limit", CERTAIN)),
    (Evidence(memory="unsaid"), Verdict("kernel-oom", LIKELY)),
    (Evidence(memory="unsaid", unit_oom=True, limited=True), Verdict("cgroup-limit", LIKELY)),
    (Evidence(memory="machine", by_hand=True), Verdict("manual", LIKELY)),
    (Evidence(memory="machine", by_hand=True, asked=True, person="alice"), Verdict("manual", CERTAIN, "alice")),
    (Evidence(memory="machine", by_hand=True, trigger="earlyoom"), Verdict("userspace-oom", CERTAIN, "earlyoom")),
    (Evidence(hunter="nohang"), Verdict("userspace-oom", CERTAIN, "nohang")),
    (Evidence(oomd=True), Verdict("systemd-oomd", CERTAIN, "systemd-oomd")),
    (Evidence(runtime="dockerd"), Verdict("container", CERTAIN, "dockerd")),
    (Evidence(sender="bob"), Verdict("manual", CERTAIN, "bob")),
    (Evidence(watchdog=CERTAIN), Verdict("worker-timeout", CERTAIN, "systemd")),
    (Evidence(stop=CERTAIN), Verdict("stop-timeout", CERTAIN, "systemd")),
    (Evidence(stop=LIKELY), Verdict("stop-timeout", LIKELY, "systemd")),
    (Evidence(sudo="alice"), Verdict("manual", LIKELY, "alice")),
    (Evidence(hung=True), Verdict("worker-timeout", CERTAIN)),
    (Evidence(forced="supervisord"), Verdict("stop-timeout", CERTAIN, "supervisord")),
    (Evidence(over_time=True), Verdict("time-limit", CERTAIN)),
    (Evidence(unit_oom=True), Verdict("kernel-oom", LIKELY)),
    (Evidence(unit_oom=True, limited=True), Verdict("cgroup-limit", LIKELY)),
    (Evidence(oomd_near=True), Verdict("systemd-oomd", LIKELY, "systemd-oomd")),
    # what outweighs what
    (Evidence(memory="group", hung=True, sudo="alice", stop=CERTAIN, hunter="earlyoom"), Verdict("cgroup-limit", CERTAIN)),
    (Evidence(hunter="earlyoom", sender="root", stop=CERTAIN), Verdict("userspace-oom", CERTAIN, "earlyoom")),
    (Evidence(sender="bob", hung=True), Verdict("manual", CERTAIN, "bob")),
    (Evidence(watchdog=CERTAIN, stop=CERTAIN), Verdict("worker-timeout", CERTAIN, "systemd")),
    (Evidence(sudo="alice", hung=True), Verdict("manual", LIKELY, "alice")),
    (Evidence(hung=True, stop=LIKELY), Verdict("worker-timeout", CERTAIN)),
    (Evidence(over_time=True, watchdog=LIKELY, oomd_near=True), Verdict("time-limit", CERTAIN)),
    (Evidence(hung=True, unit_oom=True), Verdict("worker-timeout", CERTAIN)),
)


@pytest.mark.parametrize(("evidence", "expected"), CASES)
def test_a_verdict_follows_from_its_evidence(evidence: Evidence, expected: Verdict) -> None:
    assert verdict(evidence) == expected


_ANY = st.builds(
    Evidence,
    memory=st.sampled_from(["", "machine", "group", "unsaid"]),
    hunter=st.sampled_from(["", "earlyoom"]),
    sender=st.sampled_from(["", "bob"]),
    sudo=st.sampled_from(["", "alice"]),
    stop=st.sampled_from(["", "likely", "certain"]),
    watchdog=st.sampled_from(["", "certain"]),
    runtime=st.sampled_from(["", "dockerd"]),
    forced=st.sampled_from(["", "supervisord"]),
    **{field.name: st.booleans() for field in fields(Evidence) if field.type == "bool"},
)


@given(_ANY)
def test_no_application_and_no_person_outweighs_the_kernel(evidence: Evidence) -> None:
    bare = replace(
        evidence, hung=False, over_time=False, forced="", sudo="", sender="", stop="", watchdog="", runtime="", hunter=""
    )

    if evidence.memory:
        assert verdict(evidence) == verdict(bare)


@given(_ANY)
def test_only_the_killers_own_word_is_certain(evidence: Evidence) -> None:
    said = verdict(evidence)
    kernels = evidence.memory not in {"", "unsaid"} or (evidence.memory and evidence.by_hand)
    daemons = (
        evidence.hunter or evidence.oomd or evidence.runtime or evidence.sender or "certain" in {evidence.stop, evidence.watchdog}
    )
    programs = evidence.hung or evidence.over_time or evidence.forced
    own = any(map(bool, (kernels, daemons, programs)))

    assert own or said.confidence != "certain"
    assert explained(evidence) is (said.confidence == "certain")
    assert said.cause != "unknown" or said.confidence == "guess"
    assert not by_memory(evidence) or said.cause not in {"unknown", "stop-timeout", "time-limit"}
