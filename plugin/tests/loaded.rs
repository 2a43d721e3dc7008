//! The built library, loaded as a host loads it.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use oauth_mail_abi::Library;

#[test]
fn the_library_loads_and_describes_itself() {
    let library = Library::load(built()).unwrap();
    let description = library.describe();
    assert_eq!(description["name"], "oauth-mail");
    assert_eq!(description["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(description["abi_version"], 1);
    assert!(library.extension("nobody.knows/1").is_none());
}

#[cfg(feature = "test-panics")]
mod panics {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use oauth_mail_abi::{Account, Error, Kind, Plugin};
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_panic_in_any_hook_is_an_internal_error_and_the_next_handle_works() {
        let library = Library::load(built()).unwrap();
        let folder = Folder::new("hooks");
        let order = json!({"test_panic": true});
        internal(library.plugin(&order, |_, _, _| ()).unwrap_err());
        let plugin = plugin(&library, &folder);
        internal(plugin.open(&order).unwrap_err());
        let hooks: [(&str, fn(&Account, &Value) -> Error); 4] = [
            ("authenticate", |account, order| account.authenticate(order).unwrap_err()),
            ("fetch_batch", |account, order| account.fetch_batch(order).unwrap_err()),
            ("settle_batch", |account, order| account.settle_batch(order).unwrap_err()),
            ("send_message", |account, order| account.send_message(order, b"").unwrap_err()),
        ];
        for (name, hook) in hooks {
            let (broken, whole) = (plugin.open(&incoming()).unwrap(), plugin.open(&incoming()).unwrap());
            let error = hook(&broken, &order);
            assert!(error.message().contains(name), "{error}");
            internal(error);
            assert_eq!(hook(&broken, &order).kind(), Kind::Closed, "{name}: the handle stays closed");
            // Another handle of the same plugin does not notice.
            if let Err(error) = whole.authenticate(&json!({"action": "status"})) {
                assert!(!matches!(error.kind(), Kind::Closed), "{error}");
            }
        }
    }

    #[test]
    fn the_log_callback_is_released_once_whatever_happens() {
        let library = Library::load(built()).unwrap();
        let count = Arc::new(AtomicUsize::new(0));
        let guard = Counted(count.clone());
        library
            .plugin(&json!({"test_panic": true}), move |_, _, _| {
                let _ = &guard;
            })
            .unwrap_err();
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }

    struct Counted(Arc<AtomicUsize>);

    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn internal(error: Error) {
        assert_eq!(error.kind(), Kind::Internal, "{error}");
        assert!(error.remedy().is_some());
    }

    fn plugin(library: &Library, folder: &Folder) -> Plugin {
        let config = json!({
            "store": format!("sqlite:{}", folder.0.join("store.db").display()),
            "key": {"value": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="},
            "private_networks": "allow",
        });
        library.plugin(&config, |_, _, _| ()).unwrap()
    }

    fn incoming() -> Value {
        json!({"incoming": {
            "connection_protocol": "POP/IMAP/POPS/IMAPS",
            "authentication_type": "OAuth",
            "server_name": "127.0.0.1",
            "username": "helpdesk@example.org",
            "email_addresses": ["helpdesk@example.org"],
            "protocol": "IMAPS",
            "port": 993,
            "client_id": "client",
            "authorize_url": "https://127.0.0.1:9/authorize",
            "access_token_url": "https://127.0.0.1:9/token",
            "scope": "mail",
            "redirect_url": "http://127.0.0.1:8400/callback",
            "fetch_interval_minutes": 5,
        }})
    }

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("oauth-mail-plugin-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// target/<profile>/deps/loaded-… → target/<profile>/examples
fn built() -> PathBuf {
    let name = format!("{}oauth_mail_under_test{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let deps = std::env::current_exe().unwrap();
    deps.ancestors().nth(2).unwrap().join("examples").join(name)
}
