"""x"""
MUTANTS = {}
