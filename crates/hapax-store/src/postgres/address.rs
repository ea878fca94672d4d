//! A URL as what connects to each of its hosts.

use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::SslMode;

use super::error::{PostgresError, with_causes};
use super::options::PostgresOptions;
use super::tls::Tls;

/// How long a silent connection is trusted before the system asks the other side.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);

/// Where the server may be, and how it is spoken to.
#[derive(Debug)]
pub(super) struct Address {
    /// One for each host of the URL, in its order; never empty.
    pub(super) hosts: Vec<Config>,
    pub(super) tls: Tls,
}

impl Address {
    /// Takes a URL apart: `postgres://user:password@host:port,host:port/database?parameters`.
    pub(super) fn parse(url: &str, options: &PostgresOptions) -> Result<Self, PostgresError> {
        let (url, security) = Security::take(url)?;
        let urls = each_host(&url);
        // A host that does not answer leaves the others their share of the time.
        let share = options.operation_timeout / u32::try_from(urls.len()).unwrap_or(u32::MAX);
        let hosts = urls.iter().map(|url| {
            // The parser's messages name the faulty option, never its value.
            let parsed = url.parse();
            let mut config: Config = parsed
                .map_err(|error: tokio_postgres::Error| PostgresError::Url(with_causes(&error)))?;
            if config.get_application_name().is_none() {
                config.application_name(options.application_name);
            }
            if config.get_connect_timeout().is_none() {
                config.connect_timeout(share);
            }
            config.keepalives_idle(KEEPALIVE_AFTER);
            if config.get_tcp_user_timeout().is_none() {
                config.tcp_user_timeout(options.operation_timeout);
            }
            config.ssl_mode(match security.is_encrypted {
                true => SslMode::Require,
                false => SslMode::Disable,
            });
            Ok(config)
        });
        Ok(Self {
            hosts: hosts.collect::<Result<_, PostgresError>>()?,
            tls: match security.is_encrypted {
                true => Tls::new(security.roots.as_deref())?,
                false => Tls::none(),
            },
        })
    }
}

/// The parameters that are ours to read: the client knows no certificates.
#[derive(Debug, Default, PartialEq, Eq)]
struct Security {
    is_encrypted: bool,
    /// A file of certificates (PEM); the system's without it.
    roots: Option<PathBuf>,
}

impl Security {
    /// Takes them out of the URL.
    fn take(url: &str) -> Result<(String, Self), PostgresError> {
        let wrong = |message: &str| PostgresError::Url(message.to_owned());
        let mut security = Self::default();
        let Some((head, parameters)) = url.split_once('?') else {
            return Ok((url.to_owned(), security));
        };
        let mut others = Vec::new();
        for parameter in parameters.split('&') {
            match parameter.split_once('=') {
                Some(("sslmode", "disable")) => security.is_encrypted = false,
                Some(("sslmode", "require" | "verify-full")) => security.is_encrypted = true,
                Some(("sslmode", _)) => {
                    return Err(wrong("sslmode is `disable`, `require` or `verify-full`"));
                }
                Some(("sslrootcert", "system")) => security.roots = None,
                Some(("sslrootcert", path)) => {
                    let path = percent_decoded(path);
                    let path = path.ok_or_else(|| wrong("sslrootcert is no path"))?;
                    security.roots = Some(PathBuf::from(path));
                }
                _ => others.push(parameter),
            }
        }
        if security.roots.is_some() && !security.is_encrypted {
            return Err(wrong("sslrootcert needs sslmode=require or verify-full"));
        }
        let url = match others.is_empty() {
            true => head.to_owned(),
            false => format!("{head}?{}", others.join("&")),
        };
        Ok((url, security))
    }
}

/// A URL for each host of `url`: each is tried for its own share of the time.
fn each_host(url: &str) -> Vec<String> {
    let whole = || vec![url.to_owned()];
    let Some((scheme, rest)) = url.split_once("://") else {
        return whole();
    };
    let (user, rest) = match rest.split_once('@') {
        Some((user, rest)) => (format!("{user}@"), rest),
        None => (String::new(), rest),
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (hosts, path) = rest.split_at(end);
    if !hosts.contains(',') {
        return whole();
    }
    let each = hosts.split(',');
    each.map(|host| format!("{scheme}://{user}{host}{path}"))
        .collect()
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, coded)) = rest.split_once('%') {
        bytes.extend_from_slice(plain.as_bytes());
        bytes.push(u8::from_str_radix(coded.get(..2)?, 16).ok()?);
        rest = coded.get(2..)?;
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use tokio_postgres::config::Host;

    use super::*;

    #[test]
    fn each_host_of_a_url_is_an_address_with_everything_else_of_it() {
        let url = "postgres://u:p%40w@one:1,two,[::1]:3/db?target_session_attrs=read-write";
        let address = Address::parse(url, &PostgresOptions::default()).unwrap();
        let hosts: Vec<_> = address
            .hosts
            .iter()
            .map(|config| (config.get_hosts().to_vec(), config.get_ports().to_vec()))
            .collect();
        let tcp = |host: &str| vec![Host::Tcp(host.to_owned())];
        assert_eq!(
            hosts,
            [
                (tcp("one"), vec![1]),
                (tcp("two"), vec![5432]),
                (tcp("::1"), vec![3])
            ]
        );
        for config in &address.hosts {
            assert_eq!(config.get_password(), Some(b"p@w".as_slice()));
            assert_eq!(config.get_dbname(), Some("db"));
            assert_eq!(config.get_ssl_mode(), SslMode::Disable);
        }
    }

    #[test]
    fn what_encrypts_is_said_by_two_parameters_and_everything_uncertain_is_refused() {
        let take = |parameters: &str| Security::take(&format!("postgres://h/d{parameters}"));
        for (parameters, left, is_encrypted, roots) in [
            ("", "", false, None),
            ("?sslmode=disable", "", false, None),
            ("?sslmode=require", "", true, None),
            ("?user=u&sslmode=verify-full", "?user=u", true, None),
            (
                "?sslrootcert=%2Fa%20b.pem&sslmode=require&user=u",
                "?user=u",
                true,
                Some("/a b.pem"),
            ),
            ("?sslmode=require&sslrootcert=system", "", true, None),
        ] {
            let (url, security) = take(parameters).unwrap();
            assert_eq!(url, format!("postgres://h/d{left}"), "{parameters}");
            let roots = roots.map(PathBuf::from);
            assert_eq!(
                security,
                Security {
                    is_encrypted,
                    roots
                },
                "{parameters}"
            );
        }
        for parameters in [
            "?sslmode=prefer",
            "?sslmode=allow",
            "?sslmode=hunter2",
            "?sslrootcert=/a",
            "?sslmode=disable&sslrootcert=/a",
            "?sslmode=require&sslrootcert=%f",
        ] {
            let refused = take(parameters).unwrap_err().to_string();
            assert!(refused.contains("ssl"), "{refused}");
            assert!(!refused.contains("hunter2"), "{refused}");
        }
    }
}
