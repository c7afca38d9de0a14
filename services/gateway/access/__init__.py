"""Who may do what at the public API: callers, their credentials, their tenants' quotas, and the audit log."""
