"""The jobs that wait for their turn, and the schedules that have some wait again and again.

Stands on the live jobs. PROCESS 2.
"""
