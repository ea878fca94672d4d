//! A whole check: the baseline, every case in the seed's order, the verdict.

use crate::count::Counter;
use crate::drive::{Baseline, Driver, Played};
use crate::fault::Fault;
use crate::judge::{Standard, judge};
use crate::message::Message;
use crate::openapi::{self, Described};
use crate::options::{CheckError, Options};
use crate::random::Random;
use crate::report::{Case, Report};
use crate::start::Started;
use crate::target::Target;
use crate::template::Template;
use crate::wire::Fate;

/// Checks the target. `progress` hears of every case before it is played.
///
/// # Errors
///
/// The URL or the request makes no sense, the target is off loopback and that was not allowed, or nobody listens.
pub async fn check(options: &Options, progress: &dyn Fn(Fault)) -> Result<Report, CheckError> {
    let target = Target::parse(&options.url)?;
    let count_with = options
        .count_with
        .as_deref()
        .map(Target::parse)
        .transpose()?;
    let wire = target
        .wire(options.allow_remote, options.ca.as_deref())
        .await?;
    // First of all that is asked of it: its own description, for one.
    let started = match &options.start {
        None => None,
        Some(command) => {
            let started = Started::start(command, wire.address).await;
            Some(started.map_err(|why| CheckError::Start(command.clone(), why))?)
        }
    };
    let described = described(options, &target.path).await?;
    let template = template(options, &target, described.as_ref())?;
    let counter = match count_with {
        None => None,
        Some(target) => Some(counter(target, options).await?),
    };
    let driver = Driver {
        seed: options.seed,
        wire,
        template,
        counter,
        restart: options.restart.clone(),
        started,
        other_authorization: options.other_authorization.clone(),
    };
    let mut report = Report::new(
        options,
        driver.template.method(),
        &target.origin(),
        driver.template.target(),
    );
    let baseline = match driver.baseline().await? {
        Ok(baseline) => baseline,
        Err(why) => {
            report.baseline = Some(why);
            driver.end().await;
            return Ok(report);
        }
    };
    report.counting = counting(options, &baseline);
    let standard = Standard {
        profile: options.profile,
        requires_key: options.requires_key
            || described.is_some_and(|described| described.requires_key),
    };
    for fault in order(options) {
        progress(fault);
        report
            .cases
            .push(case(&driver, fault, &baseline, standard).await);
    }
    report.cases.sort_by_key(|case| case.fault);
    driver.end().await;
    Ok(report)
}

/// Plays a case. Of several orders, the report has the one that came out worst, and the middle one of those: its moment is the
/// farthest from those at which it would come out otherwise, so that commands, which keep time less well, show it, too.
async fn case(driver: &Driver, fault: Fault, baseline: &Baseline, standard: Standard) -> Case {
    let mut cases = Vec::new();
    for order in 0..fault.orders() {
        let case = match driver.play(fault, order, baseline).await {
            Played::Skipped(why) => Case::skipped(fault, why),
            Played::Yes(history) => {
                let judgements = judge(&history, standard);
                Case::judged(history, judgements)
            }
        };
        let is_skipped = case.is_skipped();
        cases.push(case);
        // What cannot be done once cannot be done again.
        if is_skipped {
            break;
        }
    }
    middle_of_the_worst(cases).unwrap_or_else(|| Case::skipped(fault, "it has no orders".into()))
}

fn middle_of_the_worst(mut cases: Vec<Case>) -> Option<Case> {
    let worst = cases.iter().map(Case::weight).max()?;
    cases.retain(|case| case.weight() == worst);
    let middle = cases.len() / 2;
    cases.into_iter().nth(middle)
}

/// The request that is checked, with the credentials of the command line.
fn template(
    options: &Options,
    target: &Target,
    described: Option<&Described>,
) -> Result<Template, CheckError> {
    let request = match described {
        Some(described) => Some(described.request.as_str()),
        None => options.request.as_deref(),
    };
    let mut template = Template::read(
        request,
        &target.path,
        options.method.as_deref(),
        &options.key_field,
    )?;
    if let Some(credentials) = &options.authorization {
        template.authorize(credentials)?;
    }
    if let Some(credentials) = &options.other_authorization {
        template.require_credentials(credentials)?;
    }
    Ok(template)
}

/// The request that an OpenAPI document describes, if there is one.
async fn described(options: &Options, path: &str) -> Result<Option<Described>, CheckError> {
    let Some(openapi) = &options.openapi else {
        return Ok(None);
    };
    let wrong = |why: String| CheckError::OpenApi(openapi.location.clone(), why);
    let text = match &openapi.text {
        Some(text) => text.clone(),
        None => fetch(&openapi.location, options).await?,
    };
    if text.len() > openapi::MAX_DOCUMENT {
        return Err(wrong("it is too large".into()));
    }
    openapi::describe(&text, &openapi.operation, path, &options.key_field)
        .map(Some)
        .map_err(wrong)
}

async fn fetch(url: &str, options: &Options) -> Result<String, CheckError> {
    let target = Target::parse(url)?;
    let wire = target
        .wire(options.allow_remote, options.ca.as_deref())
        .await?;
    let failed = |why: String| CheckError::Unreachable(url.to_owned(), why);
    match wire.exchange(&get(target.path)).await {
        Fate::Answered(answer) if answer.is_success() => {
            String::from_utf8(answer.body).map_err(|error| failed(error.to_string()))
        }
        Fate::Answered(answer) => Err(failed(format!("it answered {}", answer.status))),
        Fate::Failed(why) => Err(failed(why)),
        _ => Err(failed("the answer ended early".into())),
    }
}

fn get(target: String) -> Message {
    Message {
        method: "GET".into(),
        target,
        fields: vec![("Accept".into(), "application/json".into())],
        body: String::new(),
    }
}

async fn counter(target: Target, options: &Options) -> Result<Counter, CheckError> {
    Ok(Counter {
        wire: target
            .wire(options.allow_remote, options.ca.as_deref())
            .await?,
        message: get(target.path),
        pointer: target.fragment,
    })
}

/// How effects are told apart, in words.
fn counting(options: &Options, baseline: &Baseline) -> String {
    let names: Vec<&str> = baseline
        .identities
        .iter()
        .map(|identity| identity.name())
        .collect();
    match (&baseline.uncounted, &options.count_with) {
        (None, Some(url)) => format!("counted by {url}"),
        (why, _) if names.is_empty() => format!(
            "not countable: {}, and the answers have no identity of their own",
            why.as_deref().unwrap_or("nothing counts them")
        ),
        (why, _) => format!(
            "inferred from {}: {}",
            names.join(", "),
            why.as_deref().unwrap_or("nothing counts them")
        ),
    }
}

/// The wanted faults, each once, in an order of the seed.
fn order(options: &Options) -> Vec<Fault> {
    let mut faults: Vec<Fault> = Fault::ALL
        .into_iter()
        .filter(|fault| options.faults.is_empty() || options.faults.contains(fault))
        .collect();
    let mut random = Random::for_case(options.seed, "order");
    for at in (1..faults.len()).rev() {
        faults.swap(at, random.within(0, at));
    }
    // Last, whatever the seed: what a restart breaks must not spoil the other cases.
    faults.sort_by_key(|fault| match fault {
        Fault::AfterRestart => 1,
        Fault::KillTarget => 2,
        _ => 0,
    });
    faults
}
