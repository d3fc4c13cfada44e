"""The methods of the contract.

Stands on guard and the supervisor's door. Used by front.
"""
