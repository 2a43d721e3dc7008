//! JSON pointers (RFC 6901): read, write and remove by them.

use serde_json::{Map, Value};

/// `pointer` with one more name.
pub fn join(pointer: &str, name: &str) -> String {
    format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// Objects on the way are made. Nothing happens where something else than an object is in the way.
pub fn put(values: &mut Value, pointer: &str, value: Value) {
    let Some(names) = pointer.strip_prefix('/') else { return };
    let mut here = values;
    for name in names.split('/').map(name_of) {
        if here.is_null() {
            *here = Value::Object(Map::new());
        }
        let Some(object) = here.as_object_mut() else { return };
        here = object.entry(name).or_insert(Value::Null);
    }
    *here = value;
}

/// Objects that become empty by it go, too.
pub fn remove(values: &mut Value, pointer: &str) {
    let Some((parent, name)) = pointer.rsplit_once('/') else { return };
    let Some(object) = values.pointer_mut(parent).and_then(Value::as_object_mut) else { return };
    object.shift_remove(&name_of(name));
    if object.is_empty() && !parent.is_empty() {
        remove(values, parent);
    }
}

fn name_of(token: &str) -> String {
    token.replace("~1", "/").replace("~0", "~")
}

/// The `id` of a control.
pub fn id(pointer: &str) -> String {
    let letters = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
    format!("field{}", pointer.chars().map(letters).collect::<String>())
}
