//! Which proxy a mailbox uses. What its settings say comes before the plugin's configuration: one mailbox may be at a
//! server that the proxy does not reach. Nobody says anything: connections are direct.

use std::sync::Arc;

use crate::{
    error::{Error, Fault, Kind, Result},
    net::{NamedBy, Password, Proxy},
    settings::{Lookup, Machine, ProxyForm},
};

/// # Errors
/// `Settings` for a mailbox, `Misuse` for the plugin's configuration; neither repeats what was entered.
pub(super) fn of_mailbox(form: &ProxyForm, plugins: &Option<Proxy>) -> Result<Option<Proxy>> {
    let fault = |pointer: &str, label: &str, message: String| {
        Error::settings(vec![Fault { pointer: pointer.into(), label: label.into(), message }])
    };
    if form.proxy.is_none() {
        if form.proxy_user.is_none() && form.proxy_password.is_none() {
            return Ok(plugins.clone());
        }
        return Err(fault(
            "/advanced/proxy",
            "Proxy",
            "A user or a password for a proxy is entered, but no proxy; enter its address, or leave them out.".into(),
        ));
    }
    if form.proxy_password.is_some() && form.proxy_user.is_none() {
        let message = "A password for the proxy is entered, but no user; enter the user, or leave both out.";
        return Err(fault("/advanced/proxy_user", "Proxy User", message.into()));
    }
    named(form, NamedBy::Mailbox, &Machine).map_err(|wrong| {
        fault("/advanced/proxy", "Proxy", format!("{wrong}; enter an address such as http://proxy.example.com:3128."))
    })
}

/// # Errors
/// As [`of_mailbox`].
pub(super) fn of_plugin(form: &ProxyForm) -> Result<Option<Proxy>> {
    if form.proxy_password.is_some() && form.proxy_user.is_none() {
        return Err(Error::new(Kind::Misuse, "\"proxy_password\" needs \"proxy_user\"."));
    }
    named(form, NamedBy::Configuration, &Machine).map_err(|wrong| {
        let right = "\"proxy\" is off, environment, or an address such as http://proxy.example.com:3128";
        Error::new(Kind::Misuse, format!("The proxy cannot be used. {wrong}; {right}."))
    })
}

fn named(form: &ProxyForm, by: NamedBy, lookup: &dyn Lookup) -> Result<Option<Proxy>, String> {
    let password = form.proxy_password.clone().map(|place| -> Password { Arc::new(move || place.resolve(&Machine)) });
    let user = form.proxy_user.clone();
    match form.proxy.as_deref() {
        None | Some("off" | "") => Ok(None),
        Some("environment") => {
            // curl's order: the name in small letters comes first.
            let set = |names: [&str; 2]| {
                names.iter().find_map(|name| lookup.environment(name)).filter(|text| !text.trim().is_empty())
            };
            let Some(url) = set(["https_proxy", "HTTPS_PROXY"]) else { return Ok(None) };
            let except = set(["no_proxy", "NO_PROXY"]);
            Proxy::new(url.trim(), user, password, except.as_deref(), NamedBy::Environment)
                .map(Some)
                .map_err(|wrong| format!("The environment variable HTTPS_PROXY is set. {wrong}"))
        }
        Some(url) => Ok(Some(Proxy::new(url, user, password, None, by)?)),
    }
}

#[cfg(test)]
mod tests {
    use std::{io, path::Path};

    use super::*;

    struct Environment(&'static [(&'static str, &'static str)]);

    impl Lookup for Environment {
        fn environment(&self, name: &str) -> Option<String> {
            self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        }

        fn file(&self, _: &Path) -> io::Result<Vec<u8>> {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    fn form(proxy: Option<&str>) -> ProxyForm {
        ProxyForm { proxy: proxy.map(str::to_owned), ..ProxyForm::default() }
    }

    fn shown(proxy: Result<Option<Proxy>>) -> Option<String> {
        proxy.unwrap().map(|proxy| proxy.to_string())
    }

    #[test]
    fn the_mailbox_comes_before_the_plugin_and_off_is_an_answer() {
        let plugins = of_plugin(&form(Some("http://plugin.test:3128"))).unwrap();
        assert_eq!(shown(of_mailbox(&form(None), &plugins)).as_deref(), Some("plugin.test:3128"));
        assert_eq!(shown(of_mailbox(&form(Some("off")), &plugins)), None);
        assert_eq!(shown(of_mailbox(&form(Some("http://own.test")), &plugins)).as_deref(), Some("own.test:80"));
        assert_eq!(shown(of_plugin(&form(None))), None, "direct unless somebody says otherwise");
    }

    #[test]
    fn the_environment_counts_only_when_asked_for_and_no_proxy_is_honoured() {
        let environment = Environment(&[
            ("HTTPS_PROXY", "http://anna:s3cret@proxy.test:8080"),
            ("NO_PROXY", "localhost, .corp.test, 10.0.0.0/8"),
        ]);
        assert!(named(&form(None), NamedBy::Mailbox, &environment).unwrap().is_none());
        let proxy = named(&form(Some("environment")), NamedBy::Mailbox, &environment).unwrap().unwrap();
        assert_eq!(proxy.to_string(), "proxy.test:8080", "without its user and password");
        for (host, through) in [
            ("imap.example.com", true),
            ("localhost", false),
            ("mail.corp.test", false),
            ("10.1.2.3", false),
            ("11.1.2.3", true),
            ("2001:db8::1", true),
        ] {
            assert_eq!(proxy.is_for(host), through, "{host}");
        }
        let none = Environment(&[("NO_PROXY", "x")]);
        assert!(named(&form(Some("environment")), NamedBy::Mailbox, &none).unwrap().is_none());
    }

    #[test]
    fn a_wrong_proxy_is_told_and_its_password_is_not() {
        for url in ["socks5://a:canary@p.test:1", "https://a:canary@p.test", "http://a:canary@", "http://a:%ff@p.test"]
        {
            let wrong = of_plugin(&form(Some(url))).map(drop).unwrap_err();
            assert_eq!(wrong.kind(), Kind::Misuse);
            assert!(!wrong.to_string().contains("canary"), "{wrong}");
        }
        let user = ProxyForm { proxy_user: Some("anna".into()), ..ProxyForm::default() };
        assert_eq!(of_mailbox(&user, &None).map(drop).unwrap_err().faults()[0].pointer, "/advanced/proxy");
    }
}
