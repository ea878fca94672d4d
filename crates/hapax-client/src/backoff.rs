//! How long to wait before an attempt (P43). Pure.

use std::time::{Duration, SystemTime};

const BASE: Duration = Duration::from_millis(50);
const BASE_THROTTLED: Duration = Duration::from_secs(1);
const CAP: Duration = Duration::from_secs(20);
/// Doublings after which even the smaller base is past the cap.
const MAX_DOUBLINGS: u32 = 16;
/// Octets of a date in the one format that senders may generate (RFC 9110, section 5.6.7).
const IMF_DATE_LENGTH: usize = 29;

/// Full jitter: the part `random` (in [0, 1)) of `min(20 s, base · 2ⁿ)`, in whole milliseconds.
///
/// `n` is how many retries were made before this one; the base is 50 ms, or 1 s when throttled.
pub fn backoff(n: u32, is_throttled: bool, random: f64) -> Duration {
    let base = if is_throttled { BASE_THROTTLED } else { BASE };
    let most = base.saturating_mul(1 << n.min(MAX_DOUBLINGS)).min(CAP);
    whole_millis(Duration::try_from_secs_f64(most.as_secs_f64() * random).unwrap_or_default())
}

/// What the server asks to wait: `Retry-After`, else `retry_after` of its problem, else nothing.
pub fn retry_after(field: Option<&str>, member: Option<Duration>, now: SystemTime) -> Duration {
    let asked = field.and_then(|field| seconds(field).or_else(|| until(field, now)));
    asked.or(member).unwrap_or_default()
}

fn seconds(field: &str) -> Option<Duration> {
    let is_number = !field.is_empty() && field.bytes().all(|byte| byte.is_ascii_digit());
    // More digits than a number has room for are past every deadline.
    is_number.then(|| Duration::from_secs(field.parse().unwrap_or(u64::MAX)))
}

fn until(field: &str, now: SystemTime) -> Option<Duration> {
    if field.len() != IMF_DATE_LENGTH {
        return None;
    }
    let at = httpdate::parse_http_date(field).ok()?;
    Some(at.duration_since(now).unwrap_or_default())
}

pub(crate) fn whole_millis(duration: Duration) -> Duration {
    Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}
