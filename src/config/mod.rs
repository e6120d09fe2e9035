//! Floor 5: site, profile and policy files become a `Plan`, or every diagnostic at once.
