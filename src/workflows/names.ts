/** Name of the head node of every cluster that Rankflow brings up. */
export const HEAD = 'head';
