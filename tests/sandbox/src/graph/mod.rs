//! The face is not there yet.

use crate::{
    http::{Request, Response},
    state::State,
};

pub fn handle(_: &State, _: &Request) -> Response {
    Response::text(501, "This face is not there yet.\n")
}
