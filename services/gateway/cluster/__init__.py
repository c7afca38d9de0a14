"""The gateway as a citizen of a Kubernetes cluster: it watches EndpointSlices, and its replicas elect one by a Lease.

Only this package imports the Kubernetes client. Both parts outlive an API server that is away: what is known stays in use,
and a leader that cannot renew steps down before another one may rise.
"""
