"""How fast a configuration is: its workloads, timed, beside other programs, and what the machine could reach."""
