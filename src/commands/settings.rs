//! `tidemill settings`

use crate::cli::SettingsArgs;
use crate::exit::Failure;
use crate::output::print;
use crate::settings::Settings;

pub(crate) fn run(args: &SettingsArgs) -> Result<(), Failure> {
    let origins = Settings::origins(args)?;
    let width = |of: fn(&crate::settings::Origin) -> usize| origins.iter().map(of).max().unwrap_or(0);
    let (keys, values) = (width(|origin| origin.key.len()), width(|origin| origin.value.len()));
    origins
        .iter()
        .try_for_each(|origin| print(format_args!("{:keys$}  {:values$}  {}\n", origin.key, origin.value, origin.from)))
}
