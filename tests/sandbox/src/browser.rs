//! A person in front of a browser: signs in, allows or denies, ends at the application's redirect URL.

use std::path::Path;

use reqwest::{
    blocking::{Client, Response},
    header::LOCATION,
};
use url::Url;

use crate::{Error, Result, client};

/// More pages than any sign-in has.
const PAGES_MAX: usize = 12;

/// What the person does.
#[derive(Clone, Debug)]
pub struct Person<'a> {
    /// Signs in as this one, whatever the application suggests.
    pub login: &'a str,
    pub password: &'a str,
    pub deny: bool,
}

/// Opens `authorize_url`, walks the pages, and returns the redirect URL without opening it.
pub fn walk(ca_file: &Path, authorize_url: &str, person: &Person) -> Result<Url> {
    let http = client::http_client(ca_file)?;
    let start = Url::parse(authorize_url)?;
    let issuer = start.origin();
    let mut page = http.get(start).send()?;
    for _ in 0..PAGES_MAX {
        let url = page.url().clone();
        if let Some(location) = page.headers().get(LOCATION) {
            let location = location.to_str().map_err(Error::doing("a redirect"))?;
            let next = url.join(location)?;
            if next.origin() != issuer {
                return Ok(next);
            }
            page = http.get(next).send()?;
        } else {
            page = submit(&http, page, person)?;
        }
    }
    Err(Error::new("The sign-in pages go on for ever."))
}

/// Opens the page for device codes, types the code in, confirms, signs in, and allows or denies: what the last page says.
pub fn enter_device_code(ca_file: &Path, verification_uri: &str, user_code: &str, person: &Person) -> Result<String> {
    let http = client::http_client(ca_file)?;
    let mut page = http.get(verification_uri).send()?;
    let mut is_confirmed = false;
    for _ in 0..PAGES_MAX {
        let url = page.url().clone();
        if let Some(location) = page.headers().get(LOCATION) {
            page = http.get(url.join(location.to_str().map_err(Error::doing("a redirect"))?)?).send()?;
            continue;
        }
        if !url.path().starts_with("/device") {
            page = submit(&http, page, person)?;
            continue;
        }
        let html = page.text()?;
        let form = (between(&html, "action=\"", "\""), between(&html, "name=\"xsrf\" value=\"", "\""));
        // Success, or the first form again beside what went wrong.
        let (Some(action), Some(xsrf), false) = (form.0, form.1, is_confirmed) else { return Ok(text_of(&html)) };
        let mut form = vec![("xsrf", xsrf), ("user_code", user_code)];
        if html.contains("name=\"confirm\"") {
            form.push(("confirm", "yes"));
            is_confirmed = true;
        }
        page = http.post(url.join(action)?).form(&form).send()?;
    }
    Err(Error::new("The pages for device codes go on for ever."))
}

/// Opens the redirect URL at the application's own listener, as the browser would; what the page says.
pub fn follow(ca_file: &Path, redirect: &Url) -> Result<String> {
    let answer = client::http_client(ca_file)?.get(redirect.clone()).send()?;
    let (status, text) = (answer.status(), answer.text()?);
    if status.is_client_error() || status.is_server_error() {
        return Err(Error::new(format!("The application answers {status}: {}", text_of(&text))));
    }
    Ok(text_of(&text))
}

fn submit(http: &Client, page: Response, person: &Person) -> Result<Response> {
    let (status, url, html) = (page.status(), page.url().clone(), page.text()?);
    if !status.is_success() {
        return Err(Error::new(format!("The sign-in page answers {status}: {}", text_of(&html))));
    }
    let action = between(&html, "action=\"", "\"").ok_or_else(|| Error::new(format!("No form: {}", text_of(&html))))?;
    let form = if html.contains("name=\"password\"") {
        vec![("login", person.login), ("password", person.password)]
    } else if html.contains("name=\"consent\"") {
        vec![("consent", if person.deny { "no" } else { "yes" })]
    } else {
        return Err(Error::new(format!("A page nobody knows: {}", text_of(&html))));
    };
    Ok(http.post(url.join(action)?).form(&form).send()?)
}

fn text_of(html: &str) -> String {
    let mut inside = false;
    let text: String = html
        .chars()
        .filter(|&c| {
            inside = (inside || c == '<') && c != '>';
            !inside && c != '>'
        })
        .collect();
    text.split_whitespace().take(60).collect::<Vec<_>>().join(" ")
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let rest = &text[text.find(start)? + start.len()..];
    rest.get(..rest.find(end)?)
}
