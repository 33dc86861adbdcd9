#!/bin/sh
#SBATCH --job-name=@name@
#SBATCH --array=@array@
#SBATCH --chdir="@directory@"
#SBATCH --output="@output@"
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=@cpus@
#SBATCH --mem=@memory@
#SBATCH --partition=@partition@
#SBATCH --time=@time@
#SBATCH --gres=gpu:@gpus@
exec @command@
