//! Who may see the page, request by request.

use std::net::IpAddr;

use axum::{
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{AUTHORIZATION, HOST, WWW_AUTHENTICATE},
        uri::Authority,
    },
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_STANDARD};

pub(super) enum Access {
    /// All users of this machine.
    ThisMachine,
    /// Those who have the password, with any name.
    Password(String),
    /// Those who have logged in at a reverse proxy, which sets this header to the user's name.
    Header(HeaderName),
}

impl Access {
    pub(super) fn with_password() -> Self {
        Self::Password(format!("{:032x}", rand::random::<u128>()))
    }

    pub(super) fn password(&self) -> Option<&str> {
        match self {
            Self::Password(password) => Some(password),
            _ => None,
        }
    }

    /// The answer to a request that isn't admitted.
    pub(super) fn refusal(&self, headers: &HeaderMap) -> Option<Response> {
        match self {
            // A page of somebody else could reach this one under its own name, which it has let point to this machine.
            Self::ThisMachine if !is_of_this_machine(headers) => {
                let status = StatusCode::MISDIRECTED_REQUEST;
                Some((status, "this page is for its own machine alone\n").into_response())
            }
            Self::Password(_) if self.user(headers).is_none() => {
                let text = "this page needs the password that `pgqrs web` has printed\n";
                let mut refused = (StatusCode::UNAUTHORIZED, text).into_response();
                let ask = HeaderValue::from_static("Basic realm=\"pgqrs\", charset=\"UTF-8\"");
                refused.headers_mut().insert(WWW_AUTHENTICATE, ask);
                Some(refused)
            }
            Self::Header(_) if self.user(headers).is_none() => {
                let text = "this page is for those who come through its reverse proxy\n";
                Some((StatusCode::FORBIDDEN, text).into_response())
            }
            _ => None,
        }
    }

    /// Whose request it is; `None` if it isn't admitted, or nobody says.
    pub(super) fn user(&self, headers: &HeaderMap) -> Option<String> {
        match self {
            Self::ThisMachine => None,
            Self::Password(password) => {
                let sent = headers.get(AUTHORIZATION)?.to_str().ok()?;
                let (scheme, sent) = sent.split_once(' ')?;
                let sent = BASE64_STANDARD.decode(sent.trim()).ok()?;
                let sent = String::from_utf8(sent).ok()?;
                let (user, sent) = sent.split_once(':')?;
                let is_admitted = scheme.eq_ignore_ascii_case("basic")
                    && is_same(sent.as_bytes(), password.as_bytes());
                is_admitted.then(|| user.to_owned())
            }
            Self::Header(header) => {
                let mut values = headers.get_all(header).iter();
                let user = values.next()?.to_str().ok()?.trim();
                // With a second one, the user has sent a name too, and the proxy has kept it.
                (values.next().is_none() && !user.is_empty()).then(|| user.to_owned())
            }
        }
    }
}

/// Takes the same time wherever they differ.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let differences = one.iter().zip(other).map(|(one, other)| one ^ other);
    one.len() == other.len() && differences.fold(0, |all, one| all | one) == 0
}

fn is_of_this_machine(headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let host: Option<Authority> = host.and_then(|host| host.parse().ok());
    host.is_some_and(|host| {
        let name = host.host().trim_start_matches('[').trim_end_matches(']');
        name == "localhost" || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(access: &Access, name: HeaderName, values: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name.clone(), HeaderValue::from_str(value).expect("a value"));
        }
        let user = access.user(&headers);
        assert_eq!(access.refusal(&headers).is_none(), user.is_some());
        user
    }

    #[test]
    fn a_password_admits_with_any_name_and_each_one_is_another() {
        let access = Access::with_password();
        let password = access.password().expect("it has one");
        assert_ne!(Access::with_password().password(), Some(password));
        let basic = |text: &str| format!("Basic {}", BASE64_STANDARD.encode(text));
        let right = basic(&format!("ada:{password}"));
        assert_eq!(
            user(&access, AUTHORIZATION, &[&right]).as_deref(),
            Some("ada")
        );
        let shorter = format!("ada:{}", &password[1..]);
        for wrong in [
            basic("ada:"),
            basic("ada:wrong"),
            basic(&shorter),
            basic(password),
            right.replace("Basic", "Bearer"),
            "Basic ?".to_owned(),
        ] {
            assert_eq!(user(&access, AUTHORIZATION, &[&wrong]), None, "{wrong}");
        }
        assert_eq!(user(&access, AUTHORIZATION, &[]), None);
    }

    #[test]
    fn a_proxy_admits_with_one_name_alone() {
        let name = HeaderName::from_static("x-user");
        let access = Access::Header(name.clone());
        assert_eq!(
            user(&access, name.clone(), &["ada"]).as_deref(),
            Some("ada")
        );
        for refused in [&[] as &[&str], &[""], &[" "], &["root", "ada"]] {
            assert_eq!(user(&access, name.clone(), refused), None, "{refused:?}");
        }
    }
}
