"""A plan's card in every state."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from datetime import timedelta

import pytest

from bot.i18n import plain
from handlers.cards.plan import StepOutcome, details_card, plan_card, plan_data
from handlers.ports.plans import FINAL, Measure, Plan, State, StepRecord
from handlers.reply import Code, Reply, dump_reply, load_reply, plain_json
from remote.policy import MIB
from tests.handlers.ports import NOW, make_plan
from tests.handlers.shown import words
from tests.handlers.worlds import DRAFT, SECRET, step

PLAN = make_plan(DRAFT)
BEFORE, AFTER = Measure(93.4, 135 * MIB), Measure(61.2, 790 * MIB)


def decided(state: State, *records: StepRecord, **more: object) -> Plan:
    plan = replace(PLAN, state=state, steps=records or PLAN.steps, decided_by="anna", decided_at=NOW)
    return replace(plan, **more)  # type: ignore[arg-type]


def commands(reply: Reply) -> list[str]:
    return [button.command for row in reply.buttons for button in row]


STATES: dict[State, Plan] = {
    "proposed": PLAN,
    "approved": decided("approved"),
    "running": decided("running", StepRecord("done"), StepRecord("running"), StepRecord("waiting")),
    "verified": decided("verified", *[StepRecord("done", holds=True)] * 3, before=BEFORE, after=AFTER),
    "rolled-back": decided("rolled-back", *[StepRecord("undone", holds=False)] * 3, before=BEFORE, after=AFTER),
    "failed": decided("failed", StepRecord("done", holds=True), StepRecord("failed", "Job failed.\nsee log"), StepRecord("skipped")),
    "interrupted": decided("interrupted", StepRecord("done", holds=True), StepRecord("unknown", holds=False), StepRecord("waiting", holds=False)),
    "expired": replace(PLAN, state="expired"),
    "declined": decided("declined"),
    "superseded": replace(PLAN, state="superseded"),
    "undone": decided("undone", *[StepRecord("done", holds=True)] * 3, undone_by="other"),
}  # fmt: skip


def test_a_proposal_says_what_each_step_frees_interrupts_and_how_it_is_undone() -> None:
    shown = words(plan_card(PLAN, NOW))
    assert "prod: 3 steps free about 600 MiB" in shown
    assert "1. Stop celery_worker.service and do not start it at boot" in shown
    assert "↳ frees about 200 MiB" in shown
    assert "↳ interrupts: celery_worker.service takes no new task" in shown
    assert "↳ undo: Start celery_worker.service again" in shown
    assert "↳ cannot be undone: It was started by hand" in shown
    assert "good until 14:17 UTC" in shown
    assert PLAN.code in shown


def test_a_proposal_is_approved_declined_or_looked_at() -> None:
    card = plan_card(PLAN, NOW)
    assert commands(card) == [f"/approve {PLAN.id}", f"/decline {PLAN.id}", f"/details {PLAN.id}"]
    approve = card.buttons[0][0]
    assert approve.style == "good"
    assert approve.confirm is not None
    assert plain(approve.confirm) == "Do these 3 steps on prod now?"
    assert max(len(row) for row in card.buttons) == 2


@pytest.mark.parametrize("state", sorted(STATES))
def test_every_state_keeps_the_key_names_the_host_and_can_be_kept_in_a_row(state: State) -> None:
    card = plan_card(STATES[state], NOW)
    assert card.key == f"plan:{PLAN.id}"
    assert words(card).startswith("prod: ")
    assert words(load_reply(json.loads(json.dumps(dump_reply(card))))) == words(card)
    assert ("/approve" in words(card)) == (state == "proposed")
    assert card.ok == (state not in {"failed", "rolled-back", "interrupted"})


def test_all_states_are_covered() -> None:
    assert set(STATES) == FINAL | {"proposed", "approved", "running"}


def test_a_running_plan_follows_along() -> None:
    shown = words(plan_card(STATES["running"], NOW))
    assert "prod: plan K7QX runs, 1 of 3 steps done" in shown
    assert "✓ 1. Stop celery_worker.service" in shown
    assert "▸ 2. Stop celery_beat.service" in shown
    assert "· 3. End the stray" in shown
    assert "approved by anna, 14:02 UTC" in shown


def test_a_verified_plan_proves_it_and_offers_undo() -> None:
    card = plan_card(STATES["verified"], NOW)
    shown = words(card)
    assert "prod: done and checked, 93% → 61% used" in shown
    assert "Before: 93.4% used, 135 MiB free" in shown
    assert "After: 61.2% used, 790 MiB free" in shown
    assert commands(card) == [f"/undo {PLAN.id}", "/mem prod"]


def test_what_cannot_be_taken_back_offers_no_undo() -> None:
    lost = make_plan(replace(DRAFT, steps=(step(lost=True),)))
    card = plan_card(replace(lost, state="verified", steps=(StepRecord("done", holds=True),)), NOW)
    assert commands(card) == ["/mem prod"]
    assert "done and checked" in words(card)


def test_an_undo_offers_no_undo_of_itself() -> None:
    plan = replace(STATES["verified"], draft=replace(DRAFT, undoes="first"))
    assert f"/undo {PLAN.id}" not in commands(plan_card(plan, NOW))


def test_a_failed_plan_shows_what_the_step_printed_without_secrets() -> None:
    failed = StepRecord("failed", f"password={SECRET}\nJob failed.")
    card = plan_card(decided("failed", StepRecord("done"), failed, StepRecord("skipped")), NOW)
    code = next(block for block in card.blocks if isinstance(block, Code))
    assert code.lines[-1] == "Job failed."
    assert SECRET not in words(card)
    assert "prod: plan K7QX failed at step 2" in words(card)
    assert commands(card) == [f"/undo {PLAN.id}", "/fix prod", f"/details {PLAN.id}"]


def test_a_failed_plan_without_a_failed_step_says_only_that() -> None:
    card = plan_card(decided("failed", *[StepRecord("done")] * 3, output="celery.service is not well"), NOW)
    assert "prod: plan K7QX failed" in words(card)
    assert "celery.service is not well" in words(card)


def test_an_interrupted_plan_says_which_steps_hold_and_offers_undo() -> None:
    card = plan_card(STATES["interrupted"], NOW)
    shown = words(card)
    assert "I looked at the host" in shown
    assert "✓ 1. " in shown
    assert "✗ 2. " in shown
    assert "· 3. " in shown
    assert f"/undo {PLAN.id}" in commands(card)


def test_an_interrupted_plan_says_when_the_host_was_not_looked_at() -> None:
    card = plan_card(decided("interrupted", StepRecord("done"), StepRecord("unknown"), StepRecord("waiting")), NOW)
    assert "could not be looked at yet" in words(card)
    assert "? 2. " in words(card)


def test_a_step_that_did_not_hold_is_crossed_out() -> None:
    records = StepRecord("done", holds=False), StepRecord("unknown", holds=True), StepRecord("waiting", holds=False)
    shown = words(plan_card(decided("interrupted", *records), NOW))
    assert "✗ 1. " in shown
    assert "✓ 2. " in shown


@pytest.mark.parametrize("plan", [STATES["expired"], replace(PLAN, expires_at=NOW)])
def test_an_expired_plan_has_one_button_that_plans_again(plan: Plan) -> None:
    card = plan_card(plan, NOW)
    assert commands(card) == ["/fix prod"]
    assert "Nobody approved it before" in words(card)
    assert plan_data(plan, NOW).state == "expired"


def test_a_restart_and_an_undo_are_planned_again_as_what_they_were() -> None:
    restart = replace(DRAFT, steps=(replace(step("celery.service"), kind="restart-unit"),))
    assert commands(plan_card(replace(make_plan(restart), state="expired"), NOW)) == ["/restart prod celery.service"]
    dashed = replace(DRAFT, steps=(replace(step(r"srv-my\x2dapp.service"), kind="restart-unit"),))
    assert commands(plan_card(replace(make_plan(dashed), state="expired"), NOW)) == [r"/restart prod 'srv-my\x2dapp.service'"]
    undo = replace(DRAFT, undoes="first")
    assert commands(plan_card(replace(make_plan(undo), state="expired"), NOW)) == ["/undo first"]


def test_an_undone_plan_says_what_stayed_lost() -> None:
    shown = words(plan_card(STATES["undone"], NOW))
    assert "↶ 1. " in shown
    assert "cannot be undone: It was started by hand" in shown


def test_steps_without_words_for_their_undo_still_say_whether_there_is_one() -> None:
    bare = replace(step(), undo_text=None, interrupts=None, frees_bytes=0)
    both = replace(DRAFT, steps=(bare, replace(bare, undo=())), frees_bytes=0, findings=())
    shown = words(plan_card(make_plan(both), NOW))
    assert "prod: a plan of 2 steps" in shown
    assert "↳ can be undone" in shown
    assert "↳ cannot be undone" in shown


def test_the_details_show_the_exact_commands_and_those_that_undo_them() -> None:
    plan = decided("failed", StepRecord("failed", f"token: {SECRET}"), StepRecord("skipped"), StepRecord("skipped"))
    card = details_card(plan, NOW)
    shown = words(card)
    assert "systemctl stop celery_worker.service" in shown
    assert "systemctl start celery_worker.service" in shown
    assert "kill -TERM 990" in shown
    assert SECRET not in shown
    assert card.key == ""
    assert not card.buttons
    assert details_card(PLAN, NOW).buttons
    assert "↳ cannot be undone" in words(details_card(make_plan(replace(DRAFT, steps=(replace(step(), undo=()),))), NOW))


def test_the_data_has_the_contracts_names() -> None:
    data = plain_json(plan_data(STATES["verified"], NOW), plain)
    assert set(data) == {"id", "state", "steps", "before", "after", "verified", "text", "undoes"}
    assert [field.name for field in fields(StepOutcome)] == [
        "kind", "target", "text", "commands", "undo", "frees_bytes", "interrupts", "state", "output",
    ]  # fmt: skip
    assert data["before"] == {"used_percent": 93.4, "available_bytes": 135 * MIB}
    assert data["verified"] is True
    assert data["steps"][2]["interrupts"] is None
    json.dumps(data)


def test_a_single_step_is_one_step() -> None:
    card = plan_card(make_plan(replace(DRAFT, steps=(step(),), frees_bytes=200 * MIB), at=NOW - timedelta(minutes=1)), NOW)
    assert "prod: 1 step frees about 200 MiB" in words(card)
