//! What a person sees. Plain HTML forms: a test can drive them without a browser, and a browser without JavaScript.

use crate::http::Response;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;background:#f3f4f6;color:#111827;margin:0}\
main{max-width:24rem;margin:12vh auto;background:#fff;border:1px solid #d1d5db;border-radius:8px;padding:2rem}\
h1{font-size:1.25rem;margin-top:0}label{display:block;margin-bottom:1rem}\
input{display:block;box-sizing:border-box;width:100%;padding:.5rem;font:inherit;border:1px solid #6b7280;border-radius:4px}\
button{font:inherit;padding:.5rem 1rem;border:1px solid #1d4ed8;border-radius:4px;background:#1d4ed8;color:#fff}\
button.second{background:#fff;color:#1d4ed8}.wrong{color:#b91c1c}";

pub fn page(status: u16, title: &str, content: &str) -> Response {
    let title = escape(title);
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style></head>\
         <body><main><h1>{title}</h1>{content}</main></body></html>"
    );
    Response::html(status, html).header("Cache-Control", "no-store")
}

pub fn message(status: u16, title: &str, text: &str) -> Response {
    page(status, title, &format!("<p>{}</p>", escape(text)))
}

pub fn login(id: &str, hint: &str, wrong: Option<&str>) -> Response {
    let wrong =
        wrong.map_or_else(String::new, |text| format!("<p class=\"wrong\" role=\"alert\">{}</p>", escape(text)));
    let hint = escape(hint);
    page(
        200,
        "Sign in",
        &format!(
            "{wrong}<form method=\"post\" action=\"/login/{id}\">\
             <label>Address <input type=\"email\" name=\"login\" value=\"{hint}\" required autocomplete=\"username\"></label>\
             <label>Password <input type=\"password\" name=\"password\" required autocomplete=\"current-password\"></label>\
             <button>Sign in</button></form>"
        ),
    )
}

pub fn consent(id: &str, client: &str, user: &str, scopes: &[String]) -> Response {
    let scopes: String = scopes.iter().map(|scope| format!("<li>{}</li>", escape(scope))).collect();
    let (client, user) = (escape(client), escape(user));
    page(
        200,
        "Permissions requested",
        &format!(
            "<p><strong>{client}</strong> asks, for <strong>{user}</strong>:</p><ul>{scopes}</ul>\
             <form method=\"post\" action=\"/consent/{id}\">\
             <button name=\"consent\" value=\"yes\">Allow</button> \
             <button name=\"consent\" value=\"no\" class=\"second\">Deny</button></form>\
             <p><a href=\"/login/{id}\">Use another account</a></p>"
        ),
    )
}

pub fn device(code: &str, confirm: bool, wrong: Option<&str>) -> Response {
    let wrong =
        wrong.map_or_else(String::new, |text| format!("<p class=\"wrong\" role=\"alert\">{}</p>", escape(text)));
    let code = escape(code);
    let fields = if confirm {
        format!(
            "<p>Does your device show <strong>{code}</strong>?</p>\
             <input type=\"hidden\" name=\"user_code\" value=\"{code}\">\
             <button name=\"confirm\" value=\"yes\">Yes, go on</button>"
        )
    } else {
        format!("<label>Code <input name=\"user_code\" value=\"{code}\" required></label><button>Next</button>")
    };
    page(
        200,
        "Connect a device",
        &format!(
            "{wrong}<form method=\"post\" action=\"/device\"><input type=\"hidden\" name=\"xsrf\" value=\"none\">{fields}</form>"
        ),
    )
}

pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
