//! Stand-ins for `control::load`, which is written at the same time; deleted when it is merged.
#![allow(missing_docs, clippy::pedantic)]

pub mod load {
    use std::path::Path;
    use std::sync::Arc;

    use crate::control::fault::{Fault, Kind};
    use crate::policy::{Config, Environment, Mode, Policy, Preset};

    pub struct Overrides {
        pub mode: Option<Mode>,
    }

    #[derive(Debug)]
    pub struct Loaded {
        pub policy: Arc<Policy>,
    }

    pub struct LoadError(String);

    impl LoadError {
        pub fn into_fault(self) -> Fault {
            Fault::new(Kind::Config, self.0)
        }
    }

    pub fn load(path: Option<&Path>, over: &Overrides, env: &Environment) -> Result<Loaded, LoadError> {
        let text = match path {
            Some(path) => std::fs::read_to_string(path).map_err(|error| LoadError(error.to_string()))?,
            None => Preset::Ci.text().to_owned(),
        };
        let name = path.map_or(Preset::Ci.source().to_owned(), |path| path.display().to_string());
        let mut config = Config::parse(&text, &name).map_err(|error| LoadError(error.to_string()))?;
        config.mode = over.mode.unwrap_or(config.mode);
        let policy = Policy::new(config, env).map_err(|error| LoadError(error.to_string()))?;
        Ok(Loaded { policy: Arc::new(policy) })
    }
}
