//! What a server says about itself, and whether that will do.

use std::collections::HashMap;

use hapax_core::store::Durability;
use redis::{FromRedisValue, Value, cmd};

use super::error::RedisStoreError;

/// What was found at the servers when the store was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisReport {
    /// What an acknowledged record survives; of several servers, the weakest.
    pub durability: Durability,
    /// Why it is not durable, and what else an operator should know.
    pub warnings: Vec<String>,
    /// How many servers share the records: 1, or the primaries of a cluster.
    pub servers: usize,
    /// The version, as the server writes it.
    pub version: String,
}

impl RedisReport {
    /// Of two servers: the weaker, with both's warnings.
    pub(super) fn and(mut self, other: Self) -> Self {
        if other.durability == Durability::BestEffort {
            self.durability = Durability::BestEffort;
        }
        for warning in other.warnings {
            if !self.warnings.contains(&warning) {
                self.warnings.push(warning);
            }
        }
        self.servers += other.servers;
        self
    }
}

/// The questions, in the order in which [`Said::hear`] takes the answers.
pub(super) fn questions(client_name: &str) -> redis::Pipeline {
    let mut questions = redis::Pipeline::new();
    questions.cmd("ROLE").cmd("INFO");
    for name in SETTINGS {
        questions.add_command(cmd("CONFIG").arg("GET").arg(name).to_owned());
    }
    // Not a question. A server that refuses it shows fewer gateways to those who look for them.
    questions.cmd("CLIENT").arg("SETNAME").arg(client_name);
    questions
}

const SETTINGS: [&str; 3] = ["appendonly", "appendfsync", "maxmemory-policy"];

/// What a server said. Managed services forbid some questions.
#[derive(Debug, Default)]
pub(super) struct Said {
    role: Option<String>,
    info: HashMap<String, String>,
    config: HashMap<String, String>,
}

impl Said {
    /// Takes the answers; an error is no answer, except where the server is not ready yet.
    pub(super) fn hear(answers: Vec<Value>) -> Result<Self, RedisStoreError> {
        let mut said = Self::default();
        for (number, answer) in answers.into_iter().enumerate() {
            let answer = match answer.extract_error() {
                Ok(answer) => answer,
                Err(error) if matches!(error.code(), Some("LOADING" | "MASTERDOWN" | "NOAUTH")) => {
                    return Err(error.into());
                }
                Err(_) => continue,
            };
            match (number, answer) {
                (0, Value::Array(role)) => {
                    let first = role.into_iter().next();
                    said.role = first.and_then(|role| String::from_redis_value(role).ok());
                }
                (1, info) => {
                    let text = String::from_redis_value(info).unwrap_or_default();
                    said.info = text
                        .lines()
                        .filter_map(|line| line.split_once(':'))
                        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
                        .collect();
                }
                (_, config) => {
                    let pairs = HashMap::<String, String>::from_redis_value(config);
                    said.config.extend(pairs.unwrap_or_default());
                }
            }
        }
        Ok(said)
    }

    fn policy(&self) -> Option<&str> {
        let config = self.config.get("maxmemory-policy");
        config
            .or_else(|| self.info.get("maxmemory_policy"))
            .map(String::as_str)
    }

    fn has_log(&self) -> Option<bool> {
        if let Some(set) = self.config.get("appendonly") {
            return Some(set == "yes");
        }
        self.info.get("aof_enabled").map(|enabled| enabled == "1")
    }

    /// Whether such a server will do, and what it promises.
    pub(super) fn judge(&self) -> Result<RedisReport, RedisStoreError> {
        let role = self.role.as_ref().or_else(|| self.info.get("role"));
        if role.is_some_and(|role| role != "master") {
            return Err(RedisStoreError::Replica);
        }
        let is_valkey = self.info.contains_key("valkey_version");
        let version = self.info.get("redis_version").cloned().unwrap_or_default();
        let major = version.split('.').next().and_then(|text| text.parse().ok());
        if major.is_some_and(|major: u32| major < 7) && !is_valkey {
            return Err(RedisStoreError::TooOld(version));
        }
        if let Some(policy) = self.policy().filter(|policy| *policy != "noeviction") {
            return Err(RedisStoreError::Evicting(policy.to_owned()));
        }
        let warnings = self.warnings();
        Ok(RedisReport {
            durability: match warnings.is_empty() {
                true => Durability::Durable,
                false => Durability::BestEffort,
            },
            warnings,
            servers: 1,
            version,
        })
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.policy().is_none() {
            warnings.push(
                "the server does not say its maxmemory-policy: with any but noeviction it throws \
                 records away, and their operations run again"
                    .to_owned(),
            );
        }
        let fsync = self.config.get("appendfsync").map(String::as_str);
        match (self.has_log(), fsync) {
            (Some(true), Some("always")) => {}
            (Some(true), Some(fsync)) => warnings.push(format!(
                "appendfsync = {fsync}: a crash of the server's machine loses the last second or \
                 more, claims among it; always keeps them"
            )),
            (Some(true), None) => warnings.push(
                "the server does not say its appendfsync (CONFIG is not allowed): with any but \
                 always a crash of its machine loses the last second or more, claims among it"
                    .to_owned(),
            ),
            (Some(false), _) => warnings.push(
                "appendonly = no: a restart of the server loses everything since its last \
                 snapshot, claims among it; set appendonly yes and appendfsync always"
                    .to_owned(),
            ),
            (None, _) => warnings.push(
                "the server does not say whether it has an append-only file: without one a \
                 restart loses claims"
                    .to_owned(),
            ),
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(role: &str, info: &str, config: &[(&str, &str)]) -> Said {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let mut answers = vec![Value::Array(vec![text(role)]), text(info)];
        for (name, value) in config {
            answers.push(Value::Array(vec![text(name), text(value)]));
        }
        Said::hear(answers).expect("no error")
    }

    #[test]
    fn durable_is_what_logs_and_syncs_every_write_and_throws_nothing_away() {
        let check = |info: &str, config: &[(&str, &str)], says: Option<&str>| {
            let report = said("master", info, config).judge().expect("it will do");
            match says {
                None => assert_eq!(
                    (report.durability, report.warnings),
                    (Durability::Durable, vec![])
                ),
                Some(says) => {
                    assert_eq!(report.durability, Durability::BestEffort, "{says}");
                    let warnings = report.warnings.join("\n");
                    assert!(warnings.contains(says), "{warnings}");
                }
            }
        };
        let policy = ("maxmemory-policy", "noeviction");
        let info = "redis_version:7.2.4\r\nmaxmemory_policy:noeviction\r\naof_enabled:1\r\n";
        check(
            "",
            &[policy, ("appendonly", "yes"), ("appendfsync", "always")],
            None,
        );
        check(
            "",
            &[policy, ("appendonly", "yes"), ("appendfsync", "everysec")],
            Some("appendfsync = everysec"),
        );
        check("", &[policy, ("appendonly", "no")], Some("appendonly = no"));
        check(info, &[], Some("CONFIG is not allowed"));
        check(
            "",
            &[("appendonly", "yes"), ("appendfsync", "always")],
            Some("does not say its maxmemory-policy"),
        );
    }

    #[test]
    fn a_server_that_evicts_is_old_or_is_a_replica_is_refused() {
        for (role, info, config, says) in [
            ("slave", "", ("appendonly", "yes"), "replica"),
            (
                "master",
                "",
                ("maxmemory-policy", "allkeys-lru"),
                "allkeys-lru",
            ),
            (
                "master",
                "maxmemory_policy:volatile-ttl\r\n",
                ("a", "b"),
                "volatile-ttl",
            ),
            ("master", "redis_version:6.2.1\r\n", ("a", "b"), "6.2.1"),
        ] {
            let refused = said(role, info, &[config]).judge().expect_err(says);
            assert!(refused.to_string().contains(says), "{refused}");
        }
    }
}
