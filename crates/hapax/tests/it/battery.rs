//! A battery of HTTP/1 shapes against the real gateway, over raw sockets, from one table.
//!
//! `battery/cases.txt` is the table: what is sent byte for byte, what comes back, whether the connection lives on, and
//! the requests that the upstream may get, exactly those. [`run`](mod@run) plays a case, [`recorder`] is an upstream
//! that takes nothing but sound requests, [`chain`] puts other proxies before and behind the gateway.

mod chain;
mod reader;
mod recorder;
mod run;
mod table;

use std::thread;
use std::time::Duration;

use crate::gateway::Gateway;
use crate::support::PATIENCE;

use recorder::{Faults, Recorder, Relay};
use run::Runner;
use table::{Case, Table};

/// So many there are at least: a table that is not read in full must not pass.
const CASES: usize = 240;
/// Cases that are played at once.
const AT_ONCE: usize = 8;

/// What went wrong with some cases, one line each.
fn play(cases: &[&Case], runner: &Runner<'_>, suffix: &str, sip: bool) -> Vec<String> {
    let lanes: Vec<Vec<&Case>> = (0..AT_ONCE)
        .map(|lane| cases.iter().skip(lane).step_by(AT_ONCE).copied().collect())
        .collect();
    thread::scope(|scope| {
        let lanes: Vec<_> = lanes
            .iter()
            .map(|lane| {
                scope.spawn(move || {
                    let played = lane.iter().map(|case| runner.play(case, suffix, sip));
                    played.filter_map(Result::err).collect::<Vec<_>>()
                })
            })
            .collect();
        lanes
            .into_iter()
            .flat_map(|lane| lane.join().expect("no panic"))
            .collect()
    })
}

#[test]
fn every_shape_is_answered_as_the_table_says_and_the_upstream_sees_what_was_meant() {
    let table = Table::read();
    assert!(table.cases.len() >= CASES, "{} cases", table.cases.len());
    let mut wrong = Vec::new();
    for (name, config) in &table.gateways {
        let recorder = Recorder::start();
        let gateway = Gateway::start(&recorder.url(), config);
        let cases: Vec<&Case> = table.of(name).collect();
        let runner = Runner::new(gateway.address(), &recorder, PATIENCE);
        wrong.extend(play(&cases, &runner, "at-once", false));
        wrong.extend(play(&cases, &runner, "in-sips", true));
        // The case's own look is early; by now anything late has come, too.
        let meant = 2 * cases.iter().map(|case| case.meant()).sum::<usize>();
        let (seen, probes) = (recorder.seen().len(), recorder.probes());
        if seen != meant + probes {
            wrong.push(format!(
                "{name}: the upstream got {seen} requests, {probes} of them probes, and {meant} were meant"
            ));
        }
        wrong.extend(recorder.faults());
        if gateway.log().contains("panicked") {
            wrong.push(gateway.log());
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn a_relay_that_passes_everything_on_fails_the_battery() {
    let table = Table::read();
    let recorder = Recorder::start();
    let relay = Relay::start(recorder.address());
    let refused: Vec<&Case> = table.of("plain").filter(|case| case.is_refused()).collect();
    let runner = Runner::new(relay.address(), &recorder, Duration::from_millis(400));
    let wrong = play(&refused, &runner, "control", false);
    // All of them: nobody there answers 400.
    assert_eq!(wrong.len(), refused.len());
    // The recorder, which stands in for a strict upstream, would have noticed nearly all that came through.
    let noticed = recorder.faults().len();
    assert!(refused.len() >= 100, "{} refused", refused.len());
    assert!(
        noticed * 10 >= refused.len() * 7,
        "{noticed} of {}",
        refused.len()
    );
}

#[test]
fn the_recorder_takes_sound_requests_only() {
    let sound = |bytes: &[u8]| {
        reader::next(bytes).map(|found| found.map(|(seen, used)| (seen.line(), used)))
    };
    let head = b"POST /a HTTP/1.1\r\nHost: a\r\n";
    let with = |rest: &[u8]| [head.as_slice(), rest].concat();
    let length = with(b"Content-Length: 2\r\n\r\nhiX");
    assert_eq!(
        sound(&length),
        Ok(Some(("POST /a hi".to_owned(), length.len() - 1)))
    );
    let chunks = with(b"Transfer-Encoding: chunked\r\n\r\n2;x=1\r\nhi\r\n0\r\nX: 1\r\n\r\n");
    assert_eq!(
        sound(&chunks),
        Ok(Some(("POST /a hi".to_owned(), chunks.len())))
    );
    for cut in 0..chunks.len() {
        assert_eq!(sound(&chunks[..cut]), Ok(None), "{cut}");
    }
    let unsound: [&[u8]; 16] = [
        b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n",
        b"Content-Length: +2\r\n\r\n",
        b"Content-Length: 0x2\r\n\r\n",
        b"Transfer-Encoding: chunked, chunked\r\n\r\n",
        b"Transfer-Encoding: identity\r\n\r\n",
        b"Host: b\r\n\r\n",
        b"X: a\n\r\n",
        b"X: a\rb\r\n\r\n",
        b"X: a\r\n b\r\n\r\n",
        b"X : a\r\n\r\n",
        b": a\r\n\r\n",
        b"X: a\0b\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n0x2\r\nhi\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n2\r\nhiX\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n2\nhi\r\n0\r\n\r\n",
    ];
    for rest in unsound {
        let told = String::from_utf8_lossy(rest).into_owned();
        assert!(reader::next(&with(rest)).is_err(), "{told:?}");
    }
    for line in [
        "GET  /a HTTP/1.1",
        "GET /a HTTP/1.0x",
        "GET a HTTP/1.1",
        "GET /a",
    ] {
        let bytes = format!("{line}\r\nHost: a\r\n\r\n");
        assert!(reader::next(bytes.as_bytes()).is_err(), "{line}");
    }
}
