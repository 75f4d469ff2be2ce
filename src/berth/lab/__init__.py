"""The lab: a virtual LAN made of network namespaces, to try and test Berth without risk to the machine.

`topology` says what there is, `nodes` makes it, `holder` is the process that keeps it, `record` remembers it,
`enter` brings a process inside, and `session` is what the command line, the demo and the tests use.
"""
