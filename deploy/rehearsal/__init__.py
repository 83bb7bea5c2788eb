"""A cluster on one machine: servers on hosts of their own behind a real name server, while clients call all the time.

`make rehearsal` runs it, as root; docs/rehearsal.md has a log. Hosts are network namespaces on one bridge, dnsmasq is
the name server, and `pods` does to servers what Kubernetes would do with the manifests of deploy/kubernetes.
"""
