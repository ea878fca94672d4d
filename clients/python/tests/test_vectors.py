"""The cases that all three clients share."""

import json
from pathlib import Path

from hapax_client.backoff import Budget
from hapax_client.policy import Answer, Attempt, judge

VECTORS = json.loads((Path(__file__).parents[2] / "vectors.json").read_text("utf-8"))


def test_the_policy_decides_every_case_as_it_says() -> None:
    assert len(VECTORS["cases"]) >= 80
    for case in VECTORS["cases"]:
        given = {**VECTORS["defaults"], **case["given"]}
        outcome = given["error"] if "error" in given else Answer(given["status"], given["fields"], given["body"])
        names = ("method", "keyed", "attempt", "attempts", "maybe", "tokens", "elapsed_ms", "deadline_ms", "now_ms", "random")
        decision = judge(outcome, Attempt(**{name: given[name] for name in names}))
        shown = {"do": decision.do}
        if decision.why is not None:
            shown["why"] = decision.why
        if decision.do == "retry":
            shown |= {"after_ms": decision.after_ms, "cost": decision.cost, "maybe": decision.maybe}
        assert shown == case["then"], case["name"]


def test_a_budget_keeps_its_account_as_it_says() -> None:
    for case in VECTORS["budgets"]:
        budget = Budget()
        for step in case["steps"]:
            if "take" in step:
                assert budget.take(step["take"]) is step["granted"], case["name"]
            else:
                budget.success(step["success"])
            assert budget.tokens == step["left"], case["name"]
