//! hourly
