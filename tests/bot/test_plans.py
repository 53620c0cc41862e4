"""Plans: who may decide, once, and what everybody else is told."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any, get_args

import pytest
from sqlalchemy import select, update

from bot.chat.base import Address
from bot.i18n import render
from bot.outbox import Outbox
from bot.plans import COMES_FROM, PlanBook, plan_key
from bot.settings import ApprovalSettings
from bot.store import Store
from bot.store.tables import audit, plans
from handlers.command import Refused
from handlers.ports.plans import FINAL, Measure, Plan, State
from handlers.request import Request
from remote.policy import Policy
from remote.remedies.base import dump_draft, load_draft
from tests.bot.chats import MemoryChat
from tests.bot.drafts import draft, plain, request, touching
from tests.clock import NOW, StandingClock

OPS = Address("console", "ops")
EXPIRE_S = ApprovalSettings().expire


class Book(PlanBook):
    """A book that remembers what it started."""

    def __init__(self, store: Store, clock: StandingClock, **rules: Any) -> None:  # noqa: ANN401
        self.chat = MemoryChat()
        self.box = Outbox(store, {"console": self.chat}, clock)
        self.started: list[str] = []
        self.settings = Policy()
        super().__init__(store, self.box, clock, ApprovalSettings(**rules), lambda _: self.settings)
        self.on_approved = self.started.append


@pytest.fixture
def book(store: Store, clock: StandingClock) -> Book:
    return Book(store, clock)


async def audited(store: Store, plan_id: str) -> list[tuple[str, str]]:
    async with store.connect() as tx:
        rows = await tx.execute(select(audit).where(audit.c.plan == plan_id).order_by(audit.c.id))
        return [(row.who, row.what) for row in rows]


async def put(store: Store, plan_id: str, state: State) -> None:
    async with store.begin() as tx:
        await tx.execute(update(plans).where(plans.c.id == plan_id).values(state=state))


async def refusal(what: Any) -> Refused:  # noqa: ANN401 - an awaitable
    with pytest.raises(Refused) as caught:
        await what
    return caught.value


def said(refused: Refused) -> str:
    return render(refused.text, "en", NOW)


async def test_a_proposal_is_kept_whole(book: Book, store: Store) -> None:
    plan = await book.propose(request(), plain())

    assert plan.state == "proposed"
    assert plan.draft == plain()
    assert plan.digest == plain().digest
    assert (plan.expires_at - plan.proposed_at).total_seconds() == EXPIRE_S
    assert plan.code == plan.id[:4].upper()
    assert plan == await book.find(request(), plan.code.lower())
    assert await audited(store, plan.id) == [("anna", "proposed")]


async def test_the_same_draft_is_the_same_plan_while_it_waits(book: Book, store: Store, clock: StandingClock) -> None:
    first = await book.propose(request(), plain())
    assert await book.propose(request("boris"), plain()) == first

    await book.decline(request(), first.id)
    assert (await book.propose(request(), plain())).id != first.id


async def test_another_draft_takes_the_place_of_the_one_that_waits(book: Book, store: Store) -> None:
    first = await book.propose(request(), plain("a"))
    other_host = await book.propose(request(), plain("a", host="web"))
    second = await book.propose(request("boris"), plain("b"))

    refused = await refusal(book.approve(request(), first.id))
    assert refused.kind == "decided"
    assert said(refused) == f"A newer plan took the place of {first.code}."
    assert (await book.get(second.id)).state == (await book.get(other_host.id)).state == "proposed"
    assert await audited(store, first.id) == [("anna", "proposed"), ("boris", "superseded")]


async def test_an_approval_starts_the_plan_once(book: Book, store: Store) -> None:
    plan = await book.propose(request(), plain())
    approved = await book.approve(request("boris"), plan.code)

    assert (approved.state, approved.decided_by, approved.decided_at) == ("approved", "boris", NOW)
    assert book.started == [plan.id]
    assert await audited(store, plan.id) == [("anna", "proposed"), ("boris", "approved")]


async def test_who_approves_what_they_asked_for_is_marked_in_the_audit(book: Book, store: Store) -> None:
    plan = await book.propose(request(), plain())
    await book.approve(request(), plan.id)

    async with store.connect() as tx:
        detail = (await tx.execute(select(audit.c.detail).where(audit.c.what == "approved"))).scalar_one()
    assert detail == {"digest": plan.digest, "self_approved": True, "people": ["anna"]}


async def test_of_fifty_approvals_by_three_people_one_starts_it(book: Book) -> None:
    plan = await book.propose(request(), plain())
    presses = [book.approve(request(name), plan.id) for name in (("anna", "boris", "clara") * 17)[:50]]
    results = await asyncio.gather(*presses, return_exceptions=True)

    won = [one for one in results if isinstance(one, Plan)]
    lost = [one for one in results if isinstance(one, Refused)]
    assert (len(won), len(lost)) == (1, 49)
    assert book.started == [plan.id]
    assert {one.kind for one in lost} == {"decided"}
    assert {said(one) for one in lost} == {f"{won[0].decided_by} approved plan {plan.code} at 14:02 UTC; it is running."}


def decisions(book: Book, plan: Plan, clock: StandingClock) -> dict[str, Any]:
    async def expire() -> None:
        clock.moment = plan.expires_at
        await book.expire()

    return {
        "approved": lambda: book.approve(request("anna"), plan.id),
        "declined": lambda: book.decline(request("boris"), plan.id),
        "superseded": lambda: book.propose(request("clara"), plain("other")),
        "expired": expire,
    }


@pytest.mark.parametrize("pair", list(permutations(["approved", "declined", "superseded", "expired"], 2)))
async def test_two_decisions_at_once_leave_one(pair: tuple[State, State], store: Store, clock: StandingClock) -> None:
    book = Book(store, clock)
    plan = await book.propose(request(), plain())
    work = decisions(book, plan, clock)
    await asyncio.gather(*(work[one]() for one in pair), return_exceptions=True)

    state = (await book.get(plan.id)).state
    # When the time comes at the same moment, it may have come first for both.
    assert state in {*pair, "expired"} if "expired" in pair else set(pair)
    changes = [what for _, what in await audited(store, plan.id) if what != "proposed"]
    assert changes == [state]
    assert book.started == ([plan.id] if state == "approved" else [])


@pytest.mark.parametrize("state", get_args(State))
@pytest.mark.parametrize("goal", get_args(State))
async def test_a_plan_goes_only_where_the_table_lets_it(state: State, goal: State, book: Book, store: Store) -> None:
    if goal == "proposed":
        assert goal not in COMES_FROM
        return
    plan = await book.propose(request(), plain())
    await put(store, plan.id, state)

    assert await book.move(plan.id, goal) == (state in COMES_FROM[goal])
    now = (await book.get(plan.id)).state
    assert now == (goal if state in COMES_FROM[goal] else state)


def test_no_final_state_leads_back_into_life() -> None:
    for goal, before in COMES_FROM.items():
        if goal not in FINAL:
            assert not before & FINAL
    assert COMES_FROM["approved"] == {"proposed"}


async def test_a_viewer_is_told_which_role_it_needs(book: Book, store: Store) -> None:
    plan = await book.propose(request(), plain())
    for decide in (book.approve, book.decline):
        refused = await refusal(decide(request("vera", "viewer"), plan.id))
        assert (refused.kind, said(refused)) == ("role", "That needs the role approver or admin.")

    assert (await book.get(plan.id)).state == "proposed"
    assert book.started == []
    assert await audited(store, plan.id) == [("anna", "proposed"), *[("vera", "refused press")] * 2]


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ("approved", "boris approved plan {code} at 14:02 UTC; it is running."),
        ("running", "boris approved plan {code} at 14:02 UTC; it is running."),
        ("verified", "boris approved plan {code} at 14:02 UTC; it was done and verified."),
        ("rolled-back", "boris approved plan {code} at 14:02 UTC; it did not help and was taken back."),
        ("failed", "boris approved plan {code} at 14:02 UTC; it failed."),
        ("interrupted", "boris approved plan {code} at 14:02 UTC; it was interrupted."),
        ("undone", "boris approved plan {code} at 14:02 UTC; it was undone later."),
    ],
)
async def test_a_second_press_is_told_who_when_and_what_became_of_it(state: State, told: str, book: Book, store: Store) -> None:
    plan = await book.propose(request(), plain())
    await book.approve(request("boris"), plan.id)
    await put(store, plan.id, state)

    for decide in (book.approve, book.decline):
        refused = await refusal(decide(request("clara"), plan.id))
        assert (refused.kind, said(refused)) == ("decided", told.format(code=plan.code))
    assert book.started == [plan.id]


async def test_a_press_after_a_decline_is_told_so(book: Book) -> None:
    plan = await book.propose(request(), plain())
    declined = await book.decline(request("boris"), plan.id)

    assert declined.state == "declined"
    assert said(await refusal(book.approve(request(), plan.id))) == f"boris declined plan {plan.code} at 14:02 UTC."
    assert book.started == []


async def test_an_expired_one_says_that_it_expired(book: Book, store: Store, clock: StandingClock) -> None:
    plan = await book.propose(request(), plain())
    clock.go(EXPIRE_S)

    refused = await refusal(book.approve(request(), plan.id))
    assert refused.kind == "expired"
    assert said(refused) == "This plan expired at 14:17 UTC. /fix draws a new one."
    assert (await book.get(plan.id)).state == "expired"
    assert await audited(store, plan.id) == [("anna", "proposed"), ("memwarden", "expired")]
    assert book.started == []


async def test_a_moment_before_its_end_it_may_be_approved(book: Book, clock: StandingClock) -> None:
    plan = await book.propose(request(), plain())
    clock.go(EXPIRE_S - 0.001)

    assert (await book.approve(request(), plan.id)).state == "approved"


async def test_an_expired_draft_is_drawn_as_a_new_plan(book: Book, clock: StandingClock) -> None:
    plan = await book.propose(request(), plain())
    clock.go(EXPIRE_S)

    assert (await book.propose(request(), plain())).id != plan.id
    assert (await book.get(plan.id)).state == "expired"


async def test_two_people_must_say_yes_where_two_are_asked_for(store: Store, clock: StandingClock) -> None:
    book = Book(store, clock, reviewers=2)
    plan = await book.propose(request(), plain())
    for _ in range(2):  # one voice a person
        refused = await refusal(book.approve(request("anna"), plan.id))
        assert (refused.kind, said(refused)) == ("more", "One more person must approve it.")
    assert book.started == []

    assert (await book.approve(request("boris"), plan.id)).state == "approved"
    assert book.started == [plan.id]
    assert await audited(store, plan.id) == [("anna", "proposed"), ("anna", "first approval"), ("boris", "approved")]


async def test_two_people_at_once_start_it_once(store: Store, clock: StandingClock) -> None:
    book = Book(store, clock, reviewers=2)
    plan = await book.propose(request(), plain())
    presses = [book.approve(request(name), plan.id) for name in ("anna", "boris", "clara") * 10]
    results = await asyncio.gather(*presses, return_exceptions=True)

    assert sum(isinstance(one, Plan) for one in results) == 1
    assert book.started == [plan.id]


async def test_one_no_is_enough(store: Store, clock: StandingClock) -> None:
    book = Book(store, clock, reviewers=2)
    plan = await book.propose(request(), plain())
    await refusal(book.approve(request("boris"), plan.id))
    await book.decline(request("clara"), plan.id)

    assert (await refusal(book.approve(request("anna"), plan.id))).kind == "decided"
    assert book.started == []


async def test_who_asked_may_be_kept_from_approving(store: Store, clock: StandingClock) -> None:
    book = Book(store, clock, self_approve=False)
    plan = await book.propose(request(), plain())

    refused = await refusal(book.approve(request("anna"), plan.id))
    assert (refused.kind, said(refused)) == ("self", "Somebody else must approve what you asked for.")
    assert (await book.approve(request("boris"), plan.id)).state == "approved"


async def test_a_host_without_root_is_only_shown(book: Book) -> None:
    plan = await book.propose(request(), plain(root="no"))

    assert (await refusal(book.approve(request(), plan.id))).kind == "no-root"
    assert book.started == []


async def test_a_room_that_does_not_see_the_host_does_not_see_the_plan(book: Book) -> None:
    plan = await book.propose(request(), plain())
    elsewhere = request("boris", hosts=("web",))
    for what in (book.approve, book.decline, book.find, book.undo_draft):
        refused = await refusal(what(elsewhere, plan.id))
        assert refused.kind == "not-found"
        assert said(refused) == f"There is no plan {plan.id} here. /plans lists them."
    assert await book.recent(elsewhere, ("web",)) == ()
    assert (await book.get(plan.id)).state == "proposed"


async def test_the_last_plans_come_newest_first(book: Book, clock: StandingClock) -> None:
    made = []
    for n in range(22):
        made.append((await book.propose(request(), plain(f"{n}"))).id)
        clock.go(1)

    assert [plan.id for plan in await book.recent(request(), ("prod",))] == made[:1:-1]


async def done(book: Book, store: Store, plan: Plan, held: str) -> None:
    """Put a plan where its steps were done, as a run would."""
    await put(store, plan.id, "running")
    for n, mark in enumerate(held):
        holds = mark == "✓"
        await book.step(plan.id, n, "running")
        await book.step(plan.id, n, "done" if holds else "failed", holds=holds)
    await book.move(plan.id, "verified" if "✗" not in held else "interrupted", before=Measure(91.0, 10), after=Measure(60.0, 20))


async def test_undo_takes_back_what_holds_in_reverse(book: Book, store: Store, tmp_path: Path) -> None:
    steps = [touching(tmp_path, name) for name in "abc"]
    plan = await book.propose(request(), draft(*steps))
    await done(book, store, plan, "✓✗✓")

    back = await book.undo_draft(request(), plan.code)
    assert [step.target for step in back.steps] == ["c", "a"]
    assert back.steps[0].commands == steps[2].undo
    assert back.undoes == plan.id
    assert load_draft(dump_draft(back)) == back


async def test_when_its_undo_is_verified_a_plan_is_undone_and_can_not_be_undone_again(
    book: Book, store: Store, tmp_path: Path
) -> None:
    plan = await book.propose(request(), draft(touching(tmp_path, "a")))
    await done(book, store, plan, "✓")
    undoing = await book.propose(request("boris"), await book.undo_draft(request(), plan.id))
    await book.approve(request("boris"), undoing.id)
    await done(book, store, undoing, "✓")

    first = await book.get(plan.id)
    assert (first.state, first.undone_by) == ("undone", undoing.id)
    assert said(await refusal(book.undo_draft(request(), plan.id))) == f"Plan {plan.code} was already undone."
    assert (await audited(store, plan.id))[-1] == ("memwarden", "undone")


@pytest.mark.parametrize("state", ["proposed", "approved", "running", "rolled-back", "declined", "expired", "superseded"])
async def test_what_did_nothing_cannot_be_undone(state: State, book: Book, store: Store) -> None:
    plan = await book.propose(request(), plain())
    await put(store, plan.id, state)

    assert (await refusal(book.undo_draft(request(), plan.id))).kind == "nothing-to-undo"


async def test_the_card_goes_with_every_change(book: Book, store: Store, clock: StandingClock) -> None:
    plan = await book.propose(request(), plain())
    async with store.begin() as tx:
        from handlers.cards.plan import plan_card

        await book.box.post(tx, OPS, plan_card(plan, clock.now()), plan_key(plan.id))
    work = asyncio.create_task(book.box.run())
    titles = []

    async def shown() -> None:
        await book.box.drained()
        titles.append(book.chat.shown[0].text)

    await shown()
    await book.approve(request(), plan.id)
    await shown()
    await book.move(plan.id, "running")
    await shown()
    await book.step(plan.id, 0, "running")
    await book.step(plan.id, 0, "done", holds=True)
    await shown()
    await book.move(plan.id, "verified", before=Measure(91.0, 10), after=Measure(60.0, 20))
    await shown()
    work.cancel()

    assert len(book.chat.shown) == 1
    assert len(set(titles)) >= 4
    kept = await book.get(plan.id)
    assert (kept.before, kept.after, kept.verified) == (Measure(91.0, 10), Measure(60.0, 20), True)
    assert [what for _, what in await audited(store, plan.id)] == [
        "proposed", "approved", "running", "step running", "step done", "verified",
    ]  # fmt: skip


async def test_what_was_under_way_is_found_after_a_restart(book: Book, store: Store) -> None:
    found = []
    for n, state in enumerate(get_args(State)):
        plan = await book.propose(request(), plain(f"{n}", host=f"h{n}"))
        await put(store, plan.id, state)
        if state in {"approved", "running"}:
            found.append(plan.id)

    assert set(await book.unfinished()) == set(found)


def test_a_request_is_what_it_seems() -> None:
    one: Request = request("vera", "viewer")
    assert not one.person.may("approver")


async def test_an_approval_is_for_the_settings_that_the_plan_was_drawn_by(book: Book) -> None:
    drawn = replace(plain(), basis={"root": "uid", "policy": Policy().version})
    plan = await book.propose(request(), drawn)
    book.settings = Policy(never_touch=("a",))
    refused = await refusal(book.approve(request(), plan.id))

    assert refused.kind == "stale"
    assert (await book.get(plan.id)).state == "expired"
    assert not book.started
    book.settings = Policy()
    assert (await book.approve(request(), (await book.propose(request(), drawn)).id)).state == "approved"


async def test_an_undo_is_not_taken_back_blindly(book: Book, store: Store) -> None:
    """It would stop a unit whose twin nobody has looked at since."""
    plan = await book.propose(request(), replace(plain(), undoes="abcdefghjkmn"))
    await put(store, plan.id, "verified")
    refused = await refusal(book.undo_draft(request(), plan.id))
    assert refused.kind == "nothing-to-undo"
    assert "/fix" in str(refused.text)
