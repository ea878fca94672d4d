//! Where requests go: a URL taken apart, and whether the checker may go there.

use std::net::SocketAddr;

use tokio_rustls::rustls::pki_types::ServerName;

use crate::CheckError;
use crate::secure;
use crate::wire::Wire;

/// A URL of http or https.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    is_secure: bool,
    /// Host and port as the URL has them: what `Host` says.
    pub(crate) authority: String,
    host: String,
    port: u16,
    /// Path and query, with placeholders.
    pub(crate) path: String,
    /// What follows `#`.
    pub(crate) fragment: Option<String>,
}

impl Target {
    /// Takes a URL apart.
    pub(crate) fn parse(url: &str) -> Result<Self, CheckError> {
        let wrong = |why: &str| CheckError::Url(url.to_owned(), why.to_owned());
        let (rest, is_secure) = strip_scheme(url, "http://")
            .map(|rest| (rest, false))
            .or_else(|| strip_scheme(url, "https://").map(|rest| (rest, true)))
            .ok_or_else(|| wrong("it does not begin with http:// or https://"))?;
        let (rest, fragment) = match rest.split_once('#') {
            Some((rest, fragment)) => (rest, Some(fragment.to_owned())),
            None => (rest, None),
        };
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(at);
        if authority.contains('@') {
            return Err(wrong(
                "credentials do not belong in a URL; put Authorization in the request file",
            ));
        }
        let (host, port) =
            split_authority(authority, is_secure).ok_or_else(|| wrong("it has no host"))?;
        let path = match path {
            "" => "/".to_owned(),
            query if query.starts_with('?') => format!("/{query}"),
            path => path.to_owned(),
        };
        Ok(Self {
            is_secure,
            authority: authority.to_owned(),
            host,
            port,
            path,
            fragment,
        })
    }

    /// Scheme and authority, as a URL begins.
    pub(crate) fn origin(&self) -> String {
        let scheme = if self.is_secure { "https" } else { "http" };
        format!("{scheme}://{}", self.authority)
    }

    /// How to get there. `ca`: certificate authorities in PEM that are trusted besides the system's.
    pub(crate) async fn wire(
        &self,
        allow_remote: bool,
        ca: Option<&str>,
    ) -> Result<Wire, CheckError> {
        let tls = if self.is_secure {
            let name = ServerName::try_from(self.host.clone())
                .map_err(|error| CheckError::Url(self.origin(), error.to_string()))?;
            Some((secure::connector(ca)?, name))
        } else {
            None
        };
        Ok(Wire {
            address: self.resolve(allow_remote).await?,
            authority: self.authority.clone(),
            tls,
        })
    }

    /// An address, every one of them on loopback unless `allow_remote`.
    async fn resolve(&self, allow_remote: bool) -> Result<SocketAddr, CheckError> {
        let found = tokio::time::timeout(
            crate::wire::PATIENCE,
            tokio::net::lookup_host((self.host.as_str(), self.port)),
        )
        .await
        .map_err(|_| CheckError::Unreachable(self.authority.clone(), "no address in time".into()))?
        .map_err(|error| CheckError::Unreachable(self.authority.clone(), error.to_string()))?;
        let addresses: Vec<SocketAddr> = found.collect();
        if !allow_remote && let Some(remote) = addresses.iter().find(|a| !a.ip().is_loopback()) {
            return Err(CheckError::Remote(self.authority.clone(), remote.ip()));
        }
        // IPv4 first: `localhost` often has ::1 where nobody listens.
        addresses
            .iter()
            .find(|address| address.is_ipv4())
            .or(addresses.first())
            .copied()
            .ok_or_else(|| {
                CheckError::Unreachable(self.authority.clone(), "it has no address".into())
            })
    }
}

fn strip_scheme<'a>(url: &'a str, scheme: &str) -> Option<&'a str> {
    let start = url.get(..scheme.len())?;
    start
        .eq_ignore_ascii_case(scheme)
        .then(|| url.get(scheme.len()..))
        .flatten()
}

fn split_authority(authority: &str, is_secure: bool) -> Option<(String, u16)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']')?;
            (host, after.strip_prefix(':'))
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let port = match port {
        None | Some("") if is_secure => 443,
        None | Some("") => 80,
        Some(port) => port.parse().ok()?,
    };
    let is_host = !host.is_empty()
        && host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-_:%".contains(&byte));
    is_host.then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        for (url, authority, port, path, fragment) in [
            ("http://a", "a", 80, "/", None),
            ("HTTP://a:81?x", "a:81", 81, "/?x", None),
            ("https://a/b", "a", 443, "/b", None),
            (
                "http://[::1]:9/o/{{uuid}}?q=1#/n",
                "[::1]:9",
                9,
                "/o/{{uuid}}?q=1",
                Some("/n"),
            ),
        ] {
            let target = Target::parse(url).unwrap();
            assert_eq!(target.authority, authority, "{url}");
            assert_eq!(target.port, port, "{url}");
            assert_eq!(target.path, path, "{url}");
            assert_eq!(target.fragment.as_deref(), fragment, "{url}");
        }
    }

    #[test]
    fn what_is_no_url_of_http_is_refused() {
        for url in [
            "a",
            "ftp://a",
            "http://",
            "http://u:p@a/",
            "http://a:99999/",
            "http://a b/",
        ] {
            assert!(
                matches!(Target::parse(url), Err(CheckError::Url(..))),
                "{url}"
            );
        }
    }

    #[tokio::test]
    async fn an_address_off_loopback_is_refused_unless_allowed() {
        let target = Target::parse("http://192.0.2.1:80/").unwrap();
        assert!(matches!(
            target.resolve(false).await,
            Err(CheckError::Remote(..))
        ));
        assert!(target.resolve(true).await.is_ok());
        assert!(
            Target::parse("http://127.0.0.1:80/")
                .unwrap()
                .resolve(false)
                .await
                .is_ok()
        );
    }
}
