//! OData query options, as far as Outlook takes them.

use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{Refusal, refuse};
use crate::http::Request;

const TOP_DEFAULT: usize = 10;
const TOP_MAX: usize = 1000;

#[derive(Debug, Default)]
pub struct Query {
    pub select: Option<Vec<String>>,
    pub top: usize,
    pub skip: usize,
    pub filter: Vec<Clause>,
    /// Property; descending?
    pub order: Option<(String, bool)>,
    pub counts: bool,
    pub expands: bool,
}

/// One comparison of `$filter`; all are joined by `and`.
#[derive(Debug)]
pub struct Clause {
    property: String,
    operator: String,
    value: Literal,
}

#[derive(Debug)]
enum Literal {
    Text(String),
    Bool(bool),
    Moment(OffsetDateTime),
}

impl Query {
    /// # Errors
    /// 400 for options that are not among `served`, and for values that are none.
    pub fn parse(request: &Request, served: &[&str]) -> Result<Self, Refusal> {
        let mut query = Self { top: TOP_DEFAULT, ..Self::default() };
        for (name, value) in request.query.iter().filter(|(name, _)| name.starts_with('$')) {
            if !served.contains(&name.as_str()) {
                return Err(wrong(format!("The query option '{name}' is not served here.")));
            }
            let number = || value.parse::<usize>().map_err(|_| wrong(format!("Invalid value '{value}' for {name}.")));
            match name.as_str() {
                "$select" => query.select = Some(value.split(',').map(|name| name.trim().to_owned()).collect()),
                "$top" => {
                    query.top = number()?;
                    if query.top == 0 || query.top > TOP_MAX {
                        return Err(wrong(format!("The limit of '{TOP_MAX}' for Top query has been exceeded.")));
                    }
                }
                "$skip" => query.skip = number()?,
                "$count" => query.counts = value.eq_ignore_ascii_case("true"),
                "$filter" => query.filter = clauses(value)?,
                "$orderby" => query.order = Some(order(value)?),
                "$expand" if value == "attachments" => query.expands = true,
                "$expand" => return Err(wrong(format!("$expand={value} is not served here."))),
                _ => {}
            }
        }
        // What orders must also filter first, or the restriction is too complex for Exchange.
        if let (Some((property, _)), Some(first)) = (&query.order, query.filter.first())
            && first.property != *property
        {
            let text = "The restriction or sort order is too complex for this operation.";
            return Err(refuse(400, "InefficientFilter", text));
        }
        Ok(query)
    }

    pub fn wants(&self, property: &str) -> bool {
        self.select.as_ref().is_none_or(|select| property == "id" || select.iter().any(|name| name == property))
    }

    /// Was it asked for by name?
    pub fn names(&self, property: &str) -> bool {
        self.select.as_ref().is_some_and(|select| select.iter().any(|name| name == property))
    }

    pub fn check_select(&self, known: &[&str]) -> Result<(), Refusal> {
        match self.select.iter().flatten().find(|name| !known.contains(&name.as_str())) {
            Some(name) => {
                let text = format!("Could not find a property named '{name}' on this type.");
                Err(refuse(400, "RequestBroker--ParseUri", text))
            }
            None => Ok(()),
        }
    }

    /// `property`: its value by path, `from/emailAddress/address`.
    pub fn matches(&self, property: impl Fn(&str) -> Option<Value>) -> bool {
        self.filter.iter().all(|clause| {
            let (first, rest) = clause.property.split_once('/').unwrap_or((&clause.property, ""));
            let whole = property(first).unwrap_or_default();
            let value = rest.split('/').filter(|part| !part.is_empty()).fold(&whole, |value, part| &value[part]);
            clause.fits(value)
        })
    }
}

impl Clause {
    fn fits(&self, value: &Value) -> bool {
        use std::cmp::Ordering::{Equal, Greater, Less};
        let order = match &self.value {
            Literal::Text(text) => value.as_str().map(|value| value.cmp(text)),
            Literal::Bool(wanted) => value.as_bool().map(|value| value.cmp(wanted)),
            Literal::Moment(moment) => {
                let value = value.as_str().and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
                value.map(|value| value.cmp(moment))
            }
        };
        let Some(order) = order else { return self.operator == "ne" };
        match self.operator.as_str() {
            "eq" => order == Equal,
            "ne" => order != Equal,
            "gt" => order == Greater,
            "ge" => order != Less,
            "lt" => order == Less,
            _ => order != Greater,
        }
    }
}

fn wrong(text: String) -> Refusal {
    refuse(400, "RequestBroker--ParseUri", text)
}

fn order(text: &str) -> Result<(String, bool), Refusal> {
    let words: Vec<&str> = text.split_whitespace().collect();
    match words[..] {
        [property] | [property, "asc"] => Ok((property.to_owned(), false)),
        [property, "desc"] => Ok((property.to_owned(), true)),
        _ => Err(wrong(format!("Syntax error in $orderby: {text}"))),
    }
}

fn clauses(text: &str) -> Result<Vec<Clause>, Refusal> {
    let wrong = || {
        refuse(
            400,
            "ErrorInvalidUrlQueryFilter",
            format!("The query filter contains one or more invalid nodes: {text}"),
        )
    };
    let words = words(text).ok_or_else(wrong)?;
    let mut clauses = Vec::new();
    for part in words.split(|word| matches!(word, Word::Plain(word) if word == "and")) {
        let [Word::Plain(property), Word::Plain(operator), value] = part else { return Err(wrong()) };
        if !["eq", "ne", "gt", "ge", "lt", "le"].contains(&operator.as_str()) || property.contains('(') {
            return Err(wrong());
        }
        let value = match value {
            Word::Quoted(text) => Literal::Text(text.clone()),
            Word::Plain(word) if word == "true" => Literal::Bool(true),
            Word::Plain(word) if word == "false" => Literal::Bool(false),
            Word::Plain(word) => Literal::Moment(OffsetDateTime::parse(word, &Rfc3339).map_err(|_| wrong())?),
        };
        clauses.push(Clause { property: property.clone(), operator: operator.clone(), value });
    }
    Ok(clauses)
}

enum Word {
    Plain(String),
    Quoted(String),
}

fn words(text: &str) -> Option<Vec<Word>> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix('\'') {
            let mut end = 0;
            // Two quotes stand for one.
            loop {
                end += quoted.get(end..)?.find('\'')?;
                match quoted[end + 1..].starts_with('\'') {
                    true => end += 2,
                    false => break,
                }
            }
            words.push(Word::Quoted(quoted[..end].replace("''", "'")));
            rest = quoted[end + 1..].trim_start();
        } else {
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            words.push(Word::Plain(rest[..end].to_owned()));
            rest = rest[end..].trim_start();
        }
    }
    Some(words)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn query(name: &str, value: &str) -> Result<Query, Refusal> {
        let request = Request { query: vec![(name.into(), value.into())], ..Request::default() };
        Query::parse(&request, &["$filter", "$top", "$orderby"])
    }

    #[test]
    fn filters() {
        let item = json!({"isRead": false, "subject": "it's", "receivedDateTime": "2026-11-02T10:00:00Z",
            "from": {"emailAddress": {"address": "a@b"}}});
        for (filter, fits) in [
            ("isRead eq false", true),
            ("subject eq 'it''s' and isRead eq false", true),
            ("subject eq 'it''s and isRead eq true'", false),
            ("receivedDateTime ge 2026-11-02T10:00:00Z", true),
            ("receivedDateTime gt 2026-11-02T11:00:00+01:00", false),
            ("from/emailAddress/address eq 'a@b'", true),
            ("nothing eq 'x'", false),
            ("nothing ne 'x'", true),
        ] {
            let query = query("$filter", filter).unwrap();
            assert_eq!(query.matches(|name| item.get(name).cloned()), fits, "{filter}");
        }
        for wrong in
            ["", "isRead", "isRead eq", "isRead eq 'x", "a eq 'x' or b eq 'y'", "contains(subject,'x')", "a eq ''x'"]
        {
            assert!(query("$filter", wrong).is_err(), "{wrong}");
        }
        assert!(query("$search", "x").is_err() && query("$top", "0").is_err() && query("$orderby", "a up").is_err());
    }
}
