"""What is said on a LAN: asking who holds an address, hearing who claims one, telling who has one."""
