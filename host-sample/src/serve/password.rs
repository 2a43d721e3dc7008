//! Passwords of administrators: argon2id as the crate has it by default (19 MiB, two passes: OWASP's "Password Storage Cheat
//! Sheet"), in PHC form.

use argon2::{
    Argon2,
    password_hash::{PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::failure::{Failure, Result};

/// 144 bits: 24 characters.
const RANDOM_BYTES: usize = 18;
/// Shorter ones are refused when an administrator chooses.
pub const LENGTH_MIN: usize = 12;
/// Longer ones would only cost time.
pub const LENGTH_MAX: usize = 1024;

/// Takes some ten milliseconds and 19 MiB.
pub fn hash(password: &str) -> Result<String> {
    if password.chars().count() < LENGTH_MIN || password.len() > LENGTH_MAX {
        return Err(Failure::settings(format!("The password must have {LENGTH_MIN} to {LENGTH_MAX} characters.")));
    }
    let hash = Argon2::default().hash_password(password.as_bytes());
    Ok(hash.map_err(|error| Failure::other(format!("The password could not be hashed: {error}.")))?.to_string())
}

/// Without `hash` it takes as long, so that nobody learns which administrators there are.
pub fn verify(password: &str, hash: Option<&str>) -> bool {
    if password.len() > LENGTH_MAX {
        return false;
    }
    let Some(hash) = hash else {
        let _ = Argon2::default().hash_password(password.as_bytes());
        return false;
    };
    PasswordHash::new(hash).is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
}

pub fn random() -> Result<String> {
    let mut bytes = [0; RANDOM_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| Failure::other(format!("No random bytes can be had: {error}.")))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_password_itself_is_accepted() {
        let password = random().unwrap();
        let hash = hash(&password).unwrap();
        assert!(hash.starts_with("$argon2id$") && !hash.contains(&password));
        assert!(verify(&password, Some(&hash)));
        assert!(!verify("another password", Some(&hash)) && !verify(&password, None) && !verify(&password, Some("x")));
        assert!(super::hash("short").is_err());
    }
}
