//! Every rule with what came of it in all cases together.

use crate::judge::Verdict;
use crate::rules::{self, Grade, Rule};

use super::Report;

/// What came of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Result {
    /// Broken in at least one case.
    Broken,
    /// Not seen broken, and in at least one case nobody can tell.
    Inconclusive,
    /// Kept in every case that it applies to.
    Kept,
    /// No case applied to it.
    NotApplicable,
}

impl Result {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Broken => "broken",
            Self::Inconclusive => "inconclusive",
            Self::Kept => "kept",
            Self::NotApplicable => "not applicable",
        }
    }
}

/// A row of the table.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) rule: Rule,
    pub(crate) result: Result,
    /// The names of the cases with this result.
    pub(crate) cases: Vec<&'static str>,
}

/// A row a rule, in the rules' order.
pub(crate) fn rows(report: &Report) -> Vec<Row> {
    rules::ALL.iter().map(|rule| row(report, *rule)).collect()
}

fn row(report: &Report, rule: Rule) -> Row {
    let cases_with = |wanted: &dyn Fn(&Verdict) -> bool| -> Vec<&'static str> {
        report
            .cases
            .iter()
            .filter(|case| {
                case.judgements
                    .iter()
                    .any(|judgement| judgement.rule == rule && wanted(&judgement.verdict))
            })
            .map(|case| case.fault.name())
            .collect()
    };
    let broken = cases_with(&|verdict| matches!(verdict, Verdict::Broken(_)));
    let open = cases_with(&|verdict| matches!(verdict, Verdict::Inconclusive(_)));
    let kept = cases_with(&|verdict| matches!(verdict, Verdict::Kept(_)));
    let (result, cases) = if !broken.is_empty() {
        (Result::Broken, broken)
    } else if !open.is_empty() {
        (Result::Inconclusive, open)
    } else if !kept.is_empty() {
        (Result::Kept, kept)
    } else {
        (Result::NotApplicable, Vec::new())
    };
    Row {
        rule,
        result,
        cases,
    }
}

/// How many rules of a grade were kept, of those that applied.
pub(crate) fn kept_of(rows: &[Row], grade: Grade) -> (usize, usize) {
    let of_grade = || {
        rows.iter()
            .filter(|row| row.rule.grade == grade && row.result != Result::NotApplicable)
    };
    let kept = of_grade().filter(|row| row.result == Result::Kept);
    (kept.count(), of_grade().count())
}
