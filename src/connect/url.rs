//! A URL that may name several hosts, as libpq's URLs can and sqlx's can't.

use std::{iter, sync::Arc};

use sqlx::postgres::PgConnectOptions;

use crate::{
    error::{Error, Result},
    pool::SessionAttributes,
};

const ATTRIBUTES: &str = "target_session_attrs";
/// Parameters that can be lists, one value for each host.
const LISTS: [&str; 3] = ["host", "hostaddr", "port"];

/// What a URL says about where to connect.
pub(super) struct ParsedUrl {
    /// A connection's options for each host, in the URL's order.
    pub(super) hosts: Vec<PgConnectOptions>,
    pub(super) attributes: SessionAttributes,
}

#[derive(Debug, thiserror::Error)]
enum InvalidUrl {
    #[error(
        "`{ATTRIBUTES}={0}` can't be used: it must be `read-write` or `primary`, since a store writes, or `any`; \
         to read from a standby, name its host alone, without `{ATTRIBUTES}`"
    )]
    Attributes(String),
    #[error("{first} hosts or ports are listed in one place, and {second} in another")]
    Lengths { first: usize, second: usize },
    #[error("host {place} of {hosts}")]
    Host {
        place: usize,
        hosts: usize,
        source: sqlx::Error,
    },
}

/// # Errors
/// [`Error::Connect`], which never shows the URL: there may be a password in it.
pub(super) fn parse(url: &str) -> Result<ParsedUrl> {
    let invalid = |why: InvalidUrl| sqlx::Error::Configuration(Box::new(why));
    let failed = |error| Error::Connect(Arc::new(error));
    let parts = Parts::of(url);
    let attributes = parts.attributes().map_err(|why| failed(invalid(why)))?;
    let lists = parts.lists();
    let count = lists.iter().map(Vec::len).max().unwrap_or(1);
    if let Some(other) = lists
        .iter()
        .map(Vec::len)
        .find(|length| ![1, count].contains(length))
    {
        let (first, second) = (count, other);
        return Err(failed(invalid(InvalidUrl::Lengths { first, second })));
    }
    if count == 1 {
        let only = parts.of_host(0).parse().map_err(failed)?;
        return Ok(ParsedUrl {
            hosts: vec![only],
            attributes: attributes.unwrap_or(SessionAttributes::Any),
        });
    }
    let host = |place| {
        parts.of_host(place).parse().map_err(|source| {
            failed(invalid(InvalidUrl::Host {
                place: place + 1,
                hosts: count,
                source,
            }))
        })
    };
    Ok(ParsedUrl {
        hosts: (0..count).map(host).collect::<Result<_>>()?,
        attributes: attributes.unwrap_or(SessionAttributes::ReadWrite),
    })
}

/// `scheme://user:password@` `host:port,host:port` `/database` `?parameter=value&…` `#…`
struct Parts<'a> {
    login: &'a str,
    hosts: &'a str,
    database: &'a str,
    parameters: Vec<&'a str>,
    fragment: &'a str,
}

impl<'a> Parts<'a> {
    fn of(url: &'a str) -> Self {
        let start = url.find("://").map_or(url.len(), |at| at + 3);
        let (url, fragment) = url.split_at(url.find('#').unwrap_or(url.len()));
        let start = start.min(url.len());
        let (before, parameters) = url.split_once('?').unwrap_or((url, ""));
        let start = start.min(before.len());
        let end = before[start..]
            .find('/')
            .map_or(before.len(), |at| start + at);
        let hosts = before[start..end]
            .rfind('@')
            .map_or(start, |at| start + at + 1);
        Self {
            login: &before[..hosts],
            hosts: &before[hosts..end],
            database: &before[end..],
            parameters: parameters
                .split('&')
                .filter(|one| !one.is_empty())
                .collect(),
            fragment,
        }
    }

    /// The last one, as with libpq.
    fn attributes(&self) -> Result<Option<SessionAttributes>, InvalidUrl> {
        let mut values = self.parameters.iter().filter_map(|one| one.split_once('='));
        let value = values.rfind(|(name, _)| *name == ATTRIBUTES);
        match value.map(|(_, value)| value) {
            None => Ok(None),
            Some("any") => Ok(Some(SessionAttributes::Any)),
            Some("primary") => Ok(Some(SessionAttributes::Primary)),
            Some("read-write") => Ok(Some(SessionAttributes::ReadWrite)),
            Some(other) => Err(InvalidUrl::Attributes(other.to_owned())),
        }
    }

    /// The hosts, and the values of each parameter that can be a list.
    fn lists(&self) -> Vec<Vec<String>> {
        let parameters = self.parameters.iter().filter_map(|one| one.split_once('='));
        let parameters = parameters.filter(|(name, _)| LISTS.contains(name));
        iter::once(self.hosts)
            .chain(parameters.map(|(_, value)| value))
            .map(items)
            .collect()
    }

    /// The URL that names one host only.
    fn of_host(&self, place: usize) -> String {
        let item = |list: &str| {
            let mut items = items(list);
            if items.len() > 1 {
                items.swap_remove(place)
            } else {
                list.to_owned()
            }
        };
        let parameters = self.parameters.iter().filter_map(|one| {
            let (name, value) = one.split_once('=').unwrap_or((one, ""));
            match name {
                ATTRIBUTES => None,
                _ if LISTS.contains(&name) => {
                    let value = item(value);
                    // The default, as with libpq.
                    (!value.is_empty()).then(|| format!("{name}={value}"))
                }
                _ => Some((*one).to_owned()),
            }
        });
        let parameters: Vec<_> = parameters.collect();
        let separator = if parameters.is_empty() { "" } else { "?" };
        [
            self.login,
            &item(self.hosts),
            self.database,
            separator,
            &parameters.join("&"),
            self.fragment,
        ]
        .concat()
    }
}

fn items(list: &str) -> Vec<String> {
    let list = list.replace("%2C", ",").replace("%2c", ",");
    list.split(',').map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::error_chain;

    fn parsed(url: &str) -> (Vec<String>, SessionAttributes) {
        let parsed = parse(url).unwrap_or_else(|error| panic!("{url}: {error:?}"));
        let hosts = parsed.hosts.iter().map(|host| {
            let socket = host.get_socket().map(|socket| socket.display().to_string());
            let address = socket.unwrap_or_else(|| host.get_host().to_owned());
            let database = host.get_database().unwrap_or_default();
            format!(
                "{}@{address}:{}/{database}",
                host.get_username(),
                host.get_port()
            )
        });
        (hosts.collect(), parsed.attributes)
    }

    #[test]
    fn a_url_names_one_host_or_several() {
        use SessionAttributes::{Any, Primary, ReadWrite};
        for (url, hosts, attributes) in [
            ("postgresql://u@a/db", &["u@a:5432/db"][..], Any),
            (
                "postgresql://u@a:1/db?target_session_attrs=read-write&application_name=x",
                &["u@a:1/db"],
                ReadWrite,
            ),
            (
                "postgresql://u:p@a:1,b:2/db",
                &["u@a:1/db", "u@b:2/db"],
                ReadWrite,
            ),
            (
                "postgres://u@a,b:2,c/db",
                &["u@a:5432/db", "u@b:2/db", "u@c:5432/db"],
                ReadWrite,
            ),
            (
                "postgresql://u:p,w@x@[::1]:1,[fe80::2],b/db?target_session_attrs=primary",
                &["u@[::1]:1/db", "u@[fe80::2]:5432/db", "u@b:5432/db"],
                Primary,
            ),
            (
                "postgresql:///db?user=u&host=a,b&port=1,2&target_session_attrs=any",
                &["u@a:1/db", "u@b:2/db"],
                Any,
            ),
            (
                "postgresql://u@localhost/db?host=%2Fone%2Ctwo&port=7&sslmode=disable",
                &["u@/one:7/db", "u@two:7/db"],
                ReadWrite,
            ),
            (
                "postgresql://u@a,b/db?port=1,",
                &["u@a:1/db", "u@b:5432/db"],
                ReadWrite,
            ),
            ("postgresql://u@a,b", &["u@a:5432/", "u@b:5432/"], ReadWrite),
            (
                "postgresql://u@a,b?target_session_attrs=any",
                &["u@a:5432/", "u@b:5432/"],
                Any,
            ),
        ] {
            let (hosts, expected) = (hosts.to_vec(), parsed(url));
            assert_eq!(
                expected,
                (hosts.iter().map(|h| (*h).to_owned()).collect(), attributes),
                "{url}"
            );
        }
    }

    #[test]
    fn what_is_wrong_with_a_url_is_said_without_its_password() {
        for (url, problem) in [
            (
                "postgresql://u:secret@a,b/db?target_session_attrs=standby",
                "`target_session_attrs=standby` can't be used: it must be `read-write` or `primary`",
            ),
            (
                "postgresql://u:secret@a/db?target_session_attrs=",
                "`target_session_attrs=` can't be used",
            ),
            (
                "postgresql://u:secret@a,b,c/db?port=1,2",
                "3 hosts or ports are listed in one place, and 2 in another",
            ),
            (
                "postgresql://u:secret@a,b:none/db",
                "host 2 of 2: error with configuration: invalid port number",
            ),
            ("postgresql://u:secret@a,/db", "host 2 of 2: "),
            ("postgresql://u:secret,word/x@b/db", "host 1 of 2: "),
            ("secret", "relative URL without a base"),
            ("secret#?://", "relative URL without a base"),
        ] {
            let error = parse(url)
                .err()
                .unwrap_or_else(|| panic!("{url} is accepted"));
            let text = error_chain(&error);
            assert!(text.contains(problem), "{url}: {text}");
            assert!(!text.contains("secret"), "{url}: {text}");
            assert!(!error.is_retryable(), "{url}");
        }
    }
}
